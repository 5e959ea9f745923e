//! Files that are handed in before a session runs.

use ambient_domain::session::{Phase, Session};
use ambient_persistence::{MAX_UPLOADED, MAX_UPLOADS, UploadRow, Uploaded};
use ambient_wire::{BASE, upload::UploadedFile};

use super::{
    access::Authorized,
    right::{Edit, Right},
};
use crate::error::{ApiError, ApiResult, Number};

impl<R: Right> Authorized<Session, R> {
    /// Those that wait for the next run.
    pub(crate) async fn uploads(&self) -> ApiResult<Vec<UploadedFile>> {
        let rows = self.access.state.parts().database.uploads(&self.target.id).await?;
        Ok(rows.into_iter().map(shown).collect())
    }
}

impl Authorized<Session, Edit> {
    /// Refuses files for a session that runs: they would come too late.
    pub(crate) fn check_not_running(&self) -> ApiResult<()> {
        match self.target.phase() {
            None | Some(Phase::Stopped | Phase::Completed | Phase::Failed) => Ok(()),
            Some(_) => Err(running(&self.target)),
        }
    }

    /// Keeps a file for the next run; whether there was none of that path.
    pub(crate) async fn upload(&self, path: &str, executable: bool, content: &[u8]) -> ApiResult<(bool, UploadedFile)> {
        let database = &self.access.state.parts().database;
        let conflict = |text: String| Err(ApiError::new(Number::Conflict, text));
        if self.target.spec.repos.iter().any(|repo| repo.name == path) {
            return conflict(format!("path: '{path}' is the folder of a repository"));
        }
        match database.put_upload(&self.target.id, (path, executable), content, &self.access.principal.name).await? {
            Uploaded::Stored { row, created } => Ok((created, shown(row))),
            Uploaded::Underway => Err(running(&self.target)),
            Uploaded::InTheWay(other) => {
                conflict(format!("path: one of '{path}' and '{other}', which waits, would be a folder"))
            }
            Uploaded::TooMany => {
                conflict(format!("{MAX_UPLOADS} files wait already: start the Session, or remove some"))
            }
            Uploaded::TooLarge => {
                conflict(format!("the files that wait may have at most {MAX_UPLOADED} bytes together"))
            }
        }
    }

    /// Removes a file that waits; whether there was one.
    pub(crate) async fn remove_upload(&self, path: &str) -> ApiResult<bool> {
        Ok(self.access.state.parts().database.remove_upload(&self.target.id, path, None).await?)
    }
}

fn shown(row: UploadRow) -> UploadedFile {
    let UploadRow { path, size, sha256, executable, uploaded_by, uploaded_at } = row;
    UploadedFile { path, size, sha256, executable, uploaded_by, uploaded_at }
}

fn running(session: &Session) -> ApiError {
    let route = format!("PUT {BASE}/sessions/{}/workspace_file", session.id);
    let phase = session.phase().map_or_else(|| "over".to_owned(), |phase| phase.to_string());
    let reason = format!("the Session is {phase}: once it is Running files go to its workspace, with {route}");
    ApiError::new(Number::Conflict, reason)
}
