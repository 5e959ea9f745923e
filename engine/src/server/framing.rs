//! gRPC messages as bytes: what comes in is read whole, within limits; what goes out is framed by tonic.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tonic::{
    Code, Status, Streaming,
    body::Body,
    codec::{
        CompressionEncoding, DecodeBuf, Decoder, EncodeBody, EncodeBuf, Encoder, SingleMessageCompressionOverride,
    },
};

use crate::service::{Answer, MAX_REQUEST_BYTES, too_large};

/// Flag and length in front of a message.
const HEADER_BYTES: usize = 5;
/// A request that is too large is drained so that its sender gets to see the response, but only up to this size.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put(item.as_slice());
        Ok(())
    }
}

/// The one message of a unary request.
pub(super) async fn read(body: Body, encoding: Option<CompressionEncoding>) -> Result<Bytes, Status> {
    let framed = collect(body).await?;
    let mut messages = Streaming::new_request(RawDecoder, Full::new(framed), encoding, Some(MAX_REQUEST_BYTES));
    let message = messages.message().await.map_err(|status| match status.code() {
        // Worded as in gRPC, for workers to recognise.
        Code::ResourceExhausted => Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {MAX_REQUEST_BYTES}"
        )),
        _ => status,
    })?;
    message.ok_or_else(|| Status::invalid_argument("the request contains no message"))
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut framed = BytesMut::new();
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::cancelled(format!("the request ended early: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if discarded == 0 {
            framed.extend_from_slice(&data);
        } else {
            discarded += data.len();
        }
        let announced = framed.get(1..HEADER_BYTES).map_or(0, |mut length| length.get_u32() as usize);
        if discarded == 0 && framed.len().max(announced) > MAX_REQUEST_BYTES + HEADER_BYTES {
            discarded = framed.len();
            framed.truncate(HEADER_BYTES);
        }
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if discarded > 0 {
        let announced = framed.get(1..HEADER_BYTES).map_or(0, |mut length| length.get_u32() as usize);
        return Err(too_large(announced.max(discarded - HEADER_BYTES)));
    }
    Ok(framed.freeze())
}

/// The body of a response. The response counts as received once the connection asks for it: until then a caller that hangs up
/// gives its task back.
pub(super) fn write(answer: Answer, encoding: Option<CompressionEncoding>) -> Body {
    let source = futures::stream::once(async move { Ok(answer.take()) });
    let compress = SingleMessageCompressionOverride::default();
    Body::new(EncodeBody::new_server(RawEncoder, Box::pin(source), encoding, compress, None))
}
