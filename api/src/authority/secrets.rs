//! Values that are sealed before anyone is told about them.

use std::collections::BTreeMap;

use ambient_domain::name;
use ambient_persistence::{new_id, secret_id};
use ambient_runner_protocol::is_platform_variable;
use ambient_wire::session::SecretText;

use super::access::Access;
use crate::{
    error::{ApiError, ApiResult},
    given,
};

/// Field of the variables.
pub(crate) const ENVIRONMENT_VARIABLES: &str = "environment_variables";
/// Longest value, bytes; a whole environment must fit into a process.
const MAX_VALUE_BYTES: usize = 16 * 1024;

/// Values of variables, and the ids that stand for them in a specification. Nothing is stored until [`Access::seal`].
pub(crate) struct Sealed {
    /// Id of each value by the variable's name; null for a variable to be removed.
    pub(crate) ids: BTreeMap<String, Option<String>>,
    values: Vec<(String, SecretText)>,
}

impl Sealed {
    /// Checks the variables of a Kind's entity, and assigns ids to their values.
    pub(crate) fn of(kind: &str, id: &str, secrets: BTreeMap<String, Option<SecretText>>) -> ApiResult<Self> {
        given::entries(ENVIRONMENT_VARIABLES, secrets.len())?;
        name::environment(ENVIRONMENT_VARIABLES, secrets.keys())?;
        let (mut ids, mut values) = (BTreeMap::new(), Vec::new());
        for (name, value) in secrets {
            if is_platform_variable(&name) {
                return Err(ApiError::invalid(format!("{ENVIRONMENT_VARIABLES}.{name}"), "is set by the platform"));
            }
            let value_id = value.is_some().then(|| secret_id(kind, id, &new_id()));
            if let (Some(id), Some(value)) = (&value_id, value) {
                check(&name, &value)?;
                values.push((id.clone(), value));
            }
            ids.insert(name, value_id);
        }
        Ok(Self { ids, values })
    }
}

impl Access {
    /// Seals the values. Those that a command then does not use are removed by the sweep.
    pub(super) async fn seal(&self, sealed: &Sealed) -> ApiResult<()> {
        let values = sealed.values.iter().map(|(id, SecretText(value))| (id.clone(), value.as_bytes()));
        self.state.parts().vault.put(&values.collect::<Vec<_>>()).await?;
        Ok(())
    }
}

fn check(name: &str, SecretText(value): &SecretText) -> ApiResult<()> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(ApiError::invalid(
            format!("{ENVIRONMENT_VARIABLES}.{name}"),
            format!("must have at most {MAX_VALUE_BYTES} bytes"),
        ));
    }
    if value.contains('\0') {
        return Err(ApiError::invalid(format!("{ENVIRONMENT_VARIABLES}.{name}"), "must not contain NUL"));
    }
    Ok(())
}
