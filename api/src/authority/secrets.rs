//! Values that are sealed before anything is told of them.

use std::collections::BTreeMap;

use ambient_domain::name;
use ambient_persistence::{new_id, session_secret_id};
use ambient_wire::{runner::is_platform_variable, session::SecretText};

use super::access::Access;
use crate::{
    error::{ApiError, ApiResult},
    given,
};

const FIELD: &str = "environment_variables";
/// Longest value, bytes; all of an environment must fit into a process.
const MAX_VALUE_BYTES: usize = 16 * 1024;

impl Access {
    /// Seals the values of a session's variables; null stays null. What a command then does not use is removed by the sweep.
    pub(super) async fn seal(
        &self,
        session_id: &str,
        secrets: &BTreeMap<String, Option<SecretText>>,
    ) -> ApiResult<BTreeMap<String, Option<String>>> {
        given::entries(FIELD, secrets.len())?;
        name::environment(FIELD, secrets.keys())?;
        let (mut ids, mut values) = (BTreeMap::new(), Vec::new());
        for (name, value) in secrets {
            if is_platform_variable(name) {
                return Err(ApiError::invalid(format!("{FIELD}.{name}"), "is set by the platform"));
            }
            let id = value.is_some().then(|| session_secret_id(session_id, &new_id()));
            if let (Some(id), Some(value)) = (&id, value) {
                values.push((id.clone(), checked(name, value)?));
            }
            ids.insert(name.clone(), id);
        }
        self.state.parts().vault.put(&values).await?;
        Ok(ids)
    }
}

fn checked<'a>(name: &str, value: &'a SecretText) -> ApiResult<&'a [u8]> {
    let SecretText(value) = value;
    if value.len() > MAX_VALUE_BYTES {
        return Err(ApiError::invalid(format!("{FIELD}.{name}"), format!("must have at most {MAX_VALUE_BYTES} bytes")));
    }
    if value.contains('\0') {
        return Err(ApiError::invalid(format!("{FIELD}.{name}"), "must not contain NUL"));
    }
    Ok(value.as_bytes())
}
