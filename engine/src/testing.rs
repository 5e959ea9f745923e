//! What the tests inside the engine share: calls as they come from the wire, without one.

#![allow(clippy::unwrap_used, reason = "tests")]

use prost::Message;
use tonic::Status;

use crate::{engine::Engine, rpc::WORKFLOW_SERVICE, service};

pub(crate) const NAMESPACE: &str = "default";

pub(crate) async fn call<R: Message + Default>(engine: &Engine, rpc: &str, request: impl Message) -> Result<R, Status> {
    let call =
        service::Call { service: WORKFLOW_SERVICE.to_owned(), rpc: rpc.to_owned(), request: request.encode_to_vec() };
    let answer = service::answer(engine.clone(), call).await?.take();
    Ok(R::decode(answer.as_slice()).unwrap())
}
