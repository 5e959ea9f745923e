//! From an RPC's name and bytes to its handler and back.
//!
//! The calls that make up a workflow run in place, on their caller's thread: one thread less to wake makes a lone
//! workflow faster. Under load they go to the threads of the engine's runtime, since a worker has only one; all other calls
//! always do.
//!
//! Either way a call runs to completion: a caller that goes away (a worker shutting down drops its polls) must not separate a
//! change from what follows it, so a task of the engine's runtime takes over. A task that was claimed for a caller that
//! has gone is given back.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{FutureExt, future::BoxFuture};
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{caller::Caller, engine::Engine, handoff, rpc};

/// Largest request accepted, as on Temporal's servers.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Calls that every workflow makes and that need no connection from the pool, which would belong to the caller's runtime.
const LIGHT: [&str; 3] = ["StartWorkflowExecution", "RespondWorkflowTaskCompleted", "RespondActivityTaskCompleted"];
/// Calls that mostly wait; the work they do takes no time.
const WAITING: [&str; 3] = ["PollWorkflowTaskQueue", "PollActivityTaskQueue", "GetWorkflowExecutionHistory"];
/// This many light calls in progress count as load.
const CROWD: usize = 4;

/// Lives in the caller's future; dropped early if the caller goes away.
struct Presence {
    engine: Engine,
    gone: watch::Sender<bool>,
    caller: Caller,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.gone.send_replace(true);
        give_back(&self.engine, &self.caller);
    }
}

fn give_back(engine: &Engine, caller: &Caller) {
    if let Some(claim) = caller.take() {
        let task_engine = engine.clone();
        engine.inner.runtime.spawn(async move { handoff::give_back(&task_engine, claim).await });
    }
}

/// A request: an RPC's name and the bytes of its request.
pub(crate) struct Call<B> {
    pub(crate) service: String,
    pub(crate) rpc: String,
    pub(crate) request: B,
}

/// The bytes of a response. If they are not taken, a task among them is given back.
pub(crate) struct Answer {
    bytes: Vec<u8>,
    presence: Presence,
}

impl Answer {
    /// Bytes of the response.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// For a caller that is there to receive them.
    pub(crate) fn take(mut self) -> Vec<u8> {
        self.presence.caller.take();
        std::mem::take(&mut self.bytes)
    }
}

/// The callback that the SDK's client calls instead of the network.
pub(crate) fn callback(engine: Engine) -> CallbackBasedGrpcService {
    CallbackBasedGrpcService {
        callback: Arc::new(move |GrpcRequest { service, rpc, proto, .. }| {
            let engine = engine.clone();
            let call = Call { service, rpc, request: proto };
            async move {
                let proto = answer(engine, call).await?.take();
                Ok(GrpcSuccessResponse { headers: Default::default(), proto })
            }
            .boxed()
        }),
    }
}

/// Answers a call. Dropping the future, or the response, means the caller has gone.
pub(crate) async fn answer<B>(engine: Engine, call: Call<B>) -> Result<Answer, Status>
where
    B: AsRef<[u8]> + Send + Sync + 'static,
{
    let (gone, gone_receiver) = watch::channel(false);
    let caller = Caller::new(gone_receiver);
    let presence = Presence { engine: engine.clone(), gone, caller: caller.clone() };
    let (rpc, calls, runtime) = (call.rpc.as_str(), &engine.inner.calls, engine.inner.runtime.clone());
    let counted = LIGHT.contains(&rpc).then(|| Counted::new(Arc::clone(calls)));
    let here = counted.as_ref().map_or_else(|| WAITING.contains(&rpc), |counted| !counted.crowd);
    let work = async move {
        let _counted = counted;
        dispatch(&engine, &caller, &call.service, &call.rpc, call.request.as_ref()).await
    };
    let work = if here {
        AssertUnwindSafe(work).catch_unwind().map(|result| result.unwrap_or_else(|_| Err(broken()))).boxed()
    } else {
        let task = runtime.spawn(work);
        async move { task.await.unwrap_or_else(|_| Err(broken())) }.boxed()
    };
    let bytes = InHand { work: Some(work), presence: &presence }.await?;
    Ok(Answer { bytes, presence })
}

/// A light call in progress.
struct Counted {
    calls: Arc<AtomicUsize>,
    crowd: bool,
}

impl Counted {
    fn new(calls: Arc<AtomicUsize>) -> Self {
        let crowd = calls.fetch_add(1, Ordering::Relaxed) >= CROWD;
        Self { calls, crowd }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn broken() -> Status {
    Status::internal("the engine has failed at this call")
}

/// A call run by its caller. If the caller goes away, a task of the engine completes it.
struct InHand<'a> {
    work: Option<BoxFuture<'static, Result<Vec<u8>, Status>>>,
    presence: &'a Presence,
}

impl Future for InHand<'_> {
    type Output = Result<Vec<u8>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The caller may be a worker with its own runtime, which ends with it. Whatever this call opens there, a connection
        // from the pool or a timer, would end too, for everyone.
        let _engines = self.presence.engine.inner.runtime.enter();
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Status::internal("polled after its end"))) };
        let result = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.presence.gone.send_replace(true);
        let (engine, caller) = (self.presence.engine.clone(), self.presence.caller.clone());
        self.presence.engine.inner.runtime.spawn(async move {
            let _ = work.await;
            give_back(&engine, &caller);
        });
    }
}

async fn dispatch(
    engine: &Engine,
    caller: &Caller,
    service: &str,
    name: &str,
    request: &[u8],
) -> Result<Vec<u8>, Status> {
    if service != rpc::WORKFLOW_SERVICE {
        return rpc::other_service(engine, service, name, request).await;
    }
    if request.len() > MAX_REQUEST_BYTES {
        return Err(too_large(request.len()));
    }
    if engine.is_stopping() {
        return Err(stopping(name));
    }

    let result = rpc::call(engine, caller, name, request).await;
    count(name, result.as_ref().err().map_or(Code::Ok, Status::code));
    if let Err(status) = &result {
        tracing::debug!(rpc = name, code = ?status.code(), message = status.message(), "refused");
    }
    result
}

/// The wording is gRPC's own: workers recognise it and fail the workflow task instead of retrying.
pub(crate) fn too_large(bytes: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({bytes} vs. {MAX_REQUEST_BYTES})"))
}

/// Unknown names are not counted: a client could invent any number of them.
fn count(rpc: &str, code: Code) {
    if code != Code::Unimplemented {
        metrics::counter!("engine_requests_total", "rpc" => rpc.to_owned(), "code" => format!("{code:?}")).increment(1);
    }
}

/// A worker that outlives its engine is told that its tasks belong to others now; everyone else may retry elsewhere.
fn stopping(rpc: &str) -> Status {
    if rpc.starts_with("Respond") || rpc == "RecordActivityTaskHeartbeat" {
        return Status::not_found("task not found: the engine is shutting down and has given up its tasks");
    }
    Status::unavailable("the engine is shutting down")
}
