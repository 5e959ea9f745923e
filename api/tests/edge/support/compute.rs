//! A compute that launches nothing; a test may supply a runner's socket.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use ambient_compute::{
    AbsenceProof, Compute, ComputeError, Endpoint, Inventory, LaunchRequest, Launched, Observation, Resource,
    RunnerState, Secret, SecretName, SessionRef,
};
use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};

#[derive(Default)]
pub struct TestCompute {
    pub socket: Mutex<Option<PathBuf>>,
}

type Result<T> = std::result::Result<T, ComputeError>;

#[async_trait]
impl Compute for TestCompute {
    fn host(&self) -> &str {
        "test"
    }
    fn agents(&self) -> &[&str] {
        &["script"]
    }
    async fn ensure_project(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn delete_project(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn ensure_workspace(&self, _: &SessionRef) -> Result<()> {
        Ok(())
    }
    async fn delete_workspace(&self, _: &SessionRef) -> Result<()> {
        Ok(())
    }
    async fn remove_workspace(&self, _: &SessionRef, _: i64) -> Result<Option<u64>> {
        Ok(Some(0))
    }
    async fn write_secret(&self, _: &SessionRef, _: i64, _: SecretName, _: &Secret) -> Result<()> {
        Ok(())
    }
    async fn delete_secrets(&self, _: &SessionRef, _: i64) -> Result<()> {
        Ok(())
    }
    async fn launch(&self, _: &LaunchRequest) -> Result<Launched> {
        Err(ComputeError::Invalid("this compute launches nothing".to_owned()))
    }
    async fn state(&self, _: &SessionRef, _: i64, _: i32) -> Result<RunnerState> {
        Ok(RunnerState::Absent)
    }
    fn observe(&self) -> BoxStream<'static, Observation> {
        stream::pending().boxed()
    }
    async fn endpoint(&self, _: &SessionRef, run: i64) -> Result<Endpoint> {
        let socket = self.socket.lock().unwrap().clone();
        socket.map(|socket| Endpoint { socket }).ok_or(ComputeError::NoRunner { run })
    }
    async fn raise_fence(&self, _: &SessionRef, _: i64) -> Result<()> {
        Ok(())
    }
    async fn kill_agents(&self, _: &SessionRef, _: i64) -> Result<()> {
        Ok(())
    }
    async fn terminate(&self, _: &SessionRef, _: i64, _: Duration) -> Result<()> {
        Ok(())
    }
    async fn prove_absent(&self, _: &SessionRef, _: i64) -> Result<AbsenceProof> {
        Ok(AbsenceProof { host: "test".to_owned(), evidence: Vec::new() })
    }
    async fn resources(&self, session: &SessionRef) -> Result<Vec<Resource>> {
        let name = session.session_id.clone();
        Ok(vec![Resource { kind: "directory".to_owned(), name, status: "Present".to_owned(), detail: String::new() }])
    }
    async fn inventory(&self) -> Result<Vec<Inventory>> {
        Ok(Vec::new())
    }
}
