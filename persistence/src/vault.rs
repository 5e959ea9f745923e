//! Secrets at rest: AES-256-GCM with the key's id in the ciphertext and the owner's id as associated data.
//!
//! The key-encryption key comes from a file and never enters the database; the keys it seals do. An old seal key stays
//! readable until everything under it has been resealed.

use std::{collections::HashMap, sync::Arc};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use rand::RngCore;
use sqlx::{AssertSqlSafe, Row};

use crate::{database::Database, error::StoreError, ids::new_id};

const FORMAT: u8 = 1;
const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 12;
const ID_LENGTH: usize = 27;

/// What can go wrong with secrets. Never contains one.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key-encryption key is not the one the server's keys were sealed with, or has the wrong length.
    #[error("the key file does not fit this database: {0}")]
    WrongKey(&'static str),
    /// The ciphertext was changed, truncated, or belongs to something else.
    #[error("a sealed value cannot be opened: {0}")]
    Broken(&'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for VaultError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A secret in memory: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
    /// The secret itself: only for where it is used.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Seals and opens secrets. Clones share the keys.
#[derive(Clone)]
pub struct Vault {
    db: Database,
    keys: Arc<Keys>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("seal_key", &self.keys.seal).finish_non_exhaustive()
    }
}

struct Keys {
    /// Id of the key that seals.
    seal: String,
    /// Every key that may open.
    openers: HashMap<String, Aes256Gcm>,
    token: Secret,
}

impl Vault {
    /// Opens the vault with the key-encryption key (32 bytes), creating the server's keys on first use.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] if the keys were sealed with a different one.
    pub async fn open(db: &Database, key_bytes: &[u8]) -> Result<Self, VaultError> {
        let outer = cipher(key_bytes).ok_or(VaultError::WrongKey("it must have 32 bytes"))?;
        make_key(db, &outer, "seal").await?;
        make_key(db, &outer, "token").await?;
        let rows =
            sqlx::query("select id, purpose, sealed, active from ambient.server_keys").fetch_all(db.pool()).await?;
        let (mut seal, mut token, mut openers) = (None, None, HashMap::new());
        for row in rows {
            let (id, purpose): (String, String) = (row.try_get("id")?, row.try_get("purpose")?);
            let (sealed, active): (Vec<u8>, bool) = (row.try_get("sealed")?, row.try_get("active")?);
            let wrong = VaultError::WrongKey("the server's keys were sealed with another one");
            let key = decrypt(&outer, &sealed, &key_context(&purpose, &id)).map_err(|_| wrong)?;
            match purpose.as_str() {
                "seal" => {
                    openers.insert(id.clone(), cipher(&key).ok_or(VaultError::Broken("a key has a wrong length"))?);
                    seal = if active { Some(id) } else { seal };
                }
                _ if active => token = Some(Secret(key)),
                _ => {}
            }
        }
        let (Some(seal), Some(token)) = (seal, token) else { return Err(VaultError::Broken("a key is missing")) };
        Ok(Self { db: db.clone(), keys: Arc::new(Keys { seal, openers, token }) })
    }

    /// Key of session tokens (HMAC).
    #[must_use]
    pub fn token_key(&self) -> &[u8] {
        self.keys.token.expose()
    }

    /// Seals a secret that belongs to `owner_id`; it can only be opened with the same id.
    ///
    /// # Errors
    /// When there is no seal key.
    pub fn seal(&self, owner_id: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let id = &self.keys.seal;
        let cipher = self.keys.openers.get(id).ok_or(VaultError::Broken("its key is unknown"))?;
        let mut sealed = vec![FORMAT];
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend(encrypt(cipher, secret, &value_context(id, owner_id))?);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for this owner.
    ///
    /// # Errors
    /// [`VaultError::Broken`] if anything in it was changed.
    pub fn unseal(&self, owner_id: &str, sealed: &[u8]) -> Result<Secret, VaultError> {
        let id = sealing_key(sealed)?;
        let cipher = self.keys.openers.get(id).ok_or(VaultError::Broken("its key is unknown"))?;
        Ok(Secret(decrypt(cipher, &sealed[1 + ID_LENGTH..], &value_context(id, owner_id))?))
    }

    /// Stores secrets under their ids, replacing older ones; all or none.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn put<V: AsRef<[u8]>>(&self, secrets: &[(String, V)]) -> Result<(), VaultError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let sealed =
            secrets.iter().map(|(id, secret)| self.seal(id, secret.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let ids = secrets.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>();
        let sql = "insert into ambient.sealed_values (id, key_id, sealed)
                   select id, $2, sealed from unnest($1::text[], $3::bytea[]) as value (id, sealed)
                   on conflict (id) do update set key_id = excluded.key_id, sealed = excluded.sealed, updated_at = now()";
        sqlx::query(sql).bind(ids).bind(&self.keys.seal).bind(sealed).execute(self.db.pool()).await?;
        Ok(())
    }

    /// Those of the secrets that are stored, by id.
    ///
    /// # Errors
    /// When one was changed or the database cannot be reached.
    pub async fn get_all(
        &self,
        ids: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<HashMap<String, Secret>, VaultError> {
        let ids = ids.into_iter().map(|id| id.as_ref().to_owned()).collect::<Vec<_>>();
        let sql = "select id, sealed from ambient.sealed_values where id = any($1)";
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(sql).bind(ids).fetch_all(self.db.pool()).await?;
        rows.into_iter().map(|(id, sealed)| Ok((id.clone(), self.unseal(&id, &sealed)?))).collect()
    }

    /// Deletes all secrets of a session.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_session(&self, session_id: &str) -> Result<u64, VaultError> {
        // A range of the primary key: '0' follows '/'.
        let sql = "delete from ambient.sealed_values where id > $1 and id < $2";
        let (from, to) = (secret_id("session", session_id, ""), format!("session/{session_id}0"));
        Ok(sqlx::query(sql).bind(from).bind(to).execute(self.db.pool()).await?.rows_affected())
    }

    /// Deletes secrets that nothing refers to: replaced ones, those of deleted entities, and those whose command was never accepted.
    /// They are at least an hour old, so a command in progress loses none. At most `limit`; returns how many.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_unused(&self, limit: i64) -> Result<u64, VaultError> {
        let mut removed = 0;
        for (kind, table) in HOLDERS {
            let sql = format!(
                "delete from ambient.sealed_values where id = any(array(
                   select v.id from ambient.sealed_values v
                   left join {table} e on e.id = split_part(v.id, '/', 2) and e.deleted_at is null
                   where v.id > $2 || '/' and v.id < $2 || '0' and v.updated_at < now() - interval '1 hour'
                     and not exists (select from jsonb_each_text(e.spec -> 'environment_variables') as used
                                     where used.value = v.id)
                   limit $1))"
            );
            let left = limit.saturating_sub_unsigned(removed);
            let delete = sqlx::query(AssertSqlSafe(sql)).bind(left).bind(kind);
            removed += delete.execute(self.db.pool()).await?.rows_affected();
        }
        Ok(removed)
    }
}

/// Kinds whose specification has sealed variables, and their tables.
const HOLDERS: [(&str, &str); 3] =
    [("session", "ambient.sessions"), ("agent", "ambient.agents"), ("project", "ambient.projects")];

/// Id of a value that belongs to an entity of a Kind; `name` makes it unique within the entity.
#[must_use]
pub fn secret_id(kind: &str, entity_id: &str, name: &str) -> String {
    format!("{kind}/{entity_id}/{name}")
}

/// Creates a key if there is no active one for its purpose; two servers at once end up with the same one.
async fn make_key(db: &Database, outer: &Aes256Gcm, purpose: &str) -> Result<(), VaultError> {
    let sql = "select exists (select from ambient.server_keys where purpose = $1 and active)";
    if sqlx::query_scalar(sql).bind(purpose).fetch_one(db.pool()).await? {
        return Ok(());
    }
    let mut key = [0; KEY_LENGTH];
    rand::rng().fill_bytes(&mut key);
    let id = new_id();
    let sealed = encrypt(outer, &key, &key_context(purpose, &id))?;
    let sql = "insert into ambient.server_keys (id, purpose, sealed) values ($1, $2, $3) on conflict do nothing";
    sqlx::query(sql).bind(id).bind(purpose).bind(sealed).execute(db.pool()).await?;
    Ok(())
}

fn key_context(purpose: &str, id: &str) -> String {
    format!("ambient.server_key/{purpose}/{id}")
}

fn value_context(key_id: &str, owner_id: &str) -> String {
    format!("ambient.sealed_value/{key_id}/{owner_id}")
}

fn cipher(key: &[u8]) -> Option<Aes256Gcm> {
    Aes256Gcm::new_from_slice(key).ok()
}

fn sealing_key(sealed: &[u8]) -> Result<&str, VaultError> {
    if sealed.first() != Some(&FORMAT) {
        return Err(VaultError::Broken("its format is unknown"));
    }
    let id = sealed.get(1..=ID_LENGTH).ok_or(VaultError::Broken("it is too short"))?;
    std::str::from_utf8(id).map_err(|_| VaultError::Broken("its key id is malformed"))
}

/// A fresh nonce, then the ciphertext with its tag.
fn encrypt(cipher: &Aes256Gcm, secret: &[u8], context: &str) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE_LENGTH];
    rand::rng().fill_bytes(&mut nonce);
    let payload = Payload { msg: secret, aad: context.as_bytes() };
    let sealed = cipher.encrypt(&nonce.into(), payload).map_err(|_| VaultError::Broken("it cannot be sealed"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(cipher: &Aes256Gcm, sealed: &[u8], context: &str) -> Result<Vec<u8>, VaultError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(VaultError::Broken("it is too short"))?;
    let payload = Payload { msg: sealed, aad: context.as_bytes() };
    cipher.decrypt(&(*nonce).into(), payload).map_err(|_| VaultError::Broken("it was changed or is another's"))
}
