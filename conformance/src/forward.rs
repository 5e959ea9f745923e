//! Forwards the SDK's calls to a server unchanged, bytes in, bytes out, so that they can be inspected on the way.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use futures::FutureExt as _;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use tonic::{
    Extensions, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::Channel,
};

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A service that passes every call on.
pub fn forward(channel: Channel) -> CallbackBasedGrpcService {
    CallbackBasedGrpcService {
        callback: Arc::new(move |request| {
            let channel = channel.clone();
            async move { pass_on(channel, request).await }.boxed()
        }),
    }
}

async fn pass_on(channel: Channel, request: GrpcRequest) -> Result<GrpcSuccessResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/{}/{}", request.service, request.rpc));
    let path = path.map_err(|error| Status::internal(error.to_string()))?;
    let metadata = MetadataMap::from_headers(request.headers);
    let call = Request::from_parts(metadata, Extensions::default(), request.proto);
    let answer = grpc.unary(call, path, Raw).await?;
    Ok(GrpcSuccessResponse { headers: Default::default(), proto: answer.into_inner().to_vec() })
}
