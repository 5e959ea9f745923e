//! The database for commands that read one but start none.

use super::CommandError;
use crate::{
    config::{DatabaseUrl, ServerConfig},
    postgres::EmbeddedPostgres,
};

/// The configured database, else the one that `up` runs. If that is not running it is not started: that would write.
pub(super) async fn found(config: &ServerConfig) -> Result<DatabaseUrl, CommandError> {
    if let Some(url) = &config.database_url {
        return Ok(url.clone());
    }
    let postgres = EmbeddedPostgres::new(&config.data_dir)?;
    if postgres.postmaster().is_none() {
        config.require_database_url()?;
    }
    Ok(postgres.start().await?.url)
}
