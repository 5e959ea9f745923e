//! Tickets for live channels: `base64url(payload).base64url(HMAC-SHA256)`, valid for 60 s and for nothing else.

use ambient_wire::live::LiveTicket;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::principal::Principal;
use crate::error::{ApiError, ApiResult};

/// Part of what is signed, so that a signature for another purpose is never a ticket.
const PURPOSE: &[u8] = b"ambient.live-ticket.1\0";
const LIFETIME: TimeDelta = TimeDelta::seconds(60);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    principal: Principal,
    /// Seconds since 1970.
    expires: i64,
}

/// A ticket with which `principal` may open live channels.
pub(super) fn issue(key: &[u8; 32], principal: &Principal, now: DateTime<Utc>) -> ApiResult<LiveTicket> {
    let expires_at = now + LIFETIME;
    let payload = Payload { principal: principal.clone(), expires: expires_at.timestamp() };
    let payload = serde_json::to_vec(&payload).map_err(|error| ApiError::internal(&error))?;
    let signature = mac(key, &payload)?.finalize().into_bytes();
    let token = format!("{}.{}", URL_SAFE_NO_PAD.encode(&payload), URL_SAFE_NO_PAD.encode(signature));
    Ok(LiveTicket { kind: "LiveTicket".to_owned(), token, expires_at })
}

/// Whom a ticket was issued to, while it is valid.
pub(super) fn open(key: &[u8; 32], ticket: &str, now: DateTime<Utc>) -> Option<Principal> {
    let (payload, signature) = ticket.split_once('.')?;
    let (payload, signature) = (URL_SAFE_NO_PAD.decode(payload).ok()?, URL_SAFE_NO_PAD.decode(signature).ok()?);
    mac(key, &payload).ok()?.verify_slice(&signature).ok()?;
    let payload: Payload = serde_json::from_slice(&payload).ok()?;
    (now.timestamp() < payload.expires).then_some(payload.principal)
}

fn mac(key: &[u8; 32], payload: &[u8]) -> ApiResult<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| ApiError::internal(&error))?;
    mac.update(PURPOSE);
    mac.update(payload);
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_a_minute_and_only_as_it_was_issued() {
        let (key, now) = ([7; 32], Utc::now());
        let alice = Principal::person("alice", vec!["staff".to_owned()]);
        let ticket = issue(&key, &alice, now).unwrap();
        assert_eq!(open(&key, &ticket.token, now), Some(alice));
        assert_eq!(open(&key, &ticket.token, now + TimeDelta::seconds(61)), None);
        assert_eq!(open(&[8; 32], &ticket.token, now), None);
        let (payload, signature) = ticket.token.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let forged = String::from_utf8(forged).unwrap().replace("alice", "admin");
        assert_eq!(open(&key, &format!("{}.{signature}", URL_SAFE_NO_PAD.encode(forged)), now), None);
        assert_eq!(open(&key, "", now), None);
    }
}
