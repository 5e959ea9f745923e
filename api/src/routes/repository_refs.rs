//! `/repository_refs`: bookmarks of repositories.

use ambient_domain::repository_ref::{Provider, RepositoryRef, RepositoryRefSpec};
use ambient_wire::repository_ref::{RepositoryRef as Wire, RepositoryRefCreate, RepositoryRefPatch};
use serde_json::{Value, json};

use crate::{
    authority::Access,
    definitions::Served,
    error::{ApiError, ApiResult},
    given,
    schema_rules::named,
};

const MAX_OWNER: usize = 200;

impl Served for RepositoryRefSpec {
    type Entity = RepositoryRef;
    type Wire = Wire;

    fn check_create(body: &RepositoryRefCreate, _: &Access) -> ApiResult<()> {
        given::optional_url("url", Some(&body.url))?;
        check(body.branch.as_deref(), body.provider.as_deref(), body.owner.as_deref())?;
        given::labels(&body.labels)?;
        given::annotations(&body.annotations)
    }

    fn check_patch(body: &RepositoryRefPatch, _: &Access) -> ApiResult<()> {
        let flat = |given: &Option<Option<String>>| given.clone().flatten();
        given::optional_url("url", body.url.as_deref())?;
        check(flat(&body.branch).as_deref(), flat(&body.provider).as_deref(), flat(&body.owner).as_deref())?;
        body.labels.as_ref().map_or(Ok(()), given::labels)?;
        body.annotations.as_ref().map_or(Ok(()), given::annotations)
    }

    fn rules(field: &str) -> Value {
        match field {
            "provider" => json!({"enum": Provider::NAMES}),
            "owner" => named(MAX_OWNER),
            _ => Value::Null,
        }
    }

    fn derived(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("provider", json!(self.provider())),
            ("owner", json!(self.owner())),
            ("repo_name", json!(self.repo_name())),
        ]
    }
}

fn check(branch: Option<&str>, provider: Option<&str>, owner: Option<&str>) -> ApiResult<()> {
    branch.map_or(Ok(()), |branch| given::branch("branch", branch))?;
    given::optional_name("owner", owner, MAX_OWNER)?;
    match provider {
        Some(name) if Provider::named(name).is_none() => {
            Err(ApiError::invalid("provider", format!("must be one of {}", Provider::NAMES.join(", "))))
        }
        _ => Ok(()),
    }
}
