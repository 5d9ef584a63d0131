//! Files that somebody may use, and where they are.

use cmdexec_core::files::{FileId, StoredFile};
use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::Time;

/// A file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    pub file_id: String,
    /// What its owner called it.
    #[serde(default)]
    pub filename: Option<String>,
    /// How many bytes it has.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// Where its bytes are, relative to this server.
    pub file_url: String,
    pub created_at: Time,
    /// Until when new jobs can bring it. Null for what a job left: that is there as long as the job is.
    #[serde(default)]
    pub expires_at: Option<Time>,
}

/// A page of files, by their ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoredPage {
    pub files: Vec<Stored>,
    /// What to send as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// What an attempt left, kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// What to say of it as `artifacts` in the report.
    pub file_id: String,
    /// Where its bytes are, for the job's owner.
    pub file_url: String,
}

/// What a file is called, percent-encoded, beside its bytes.
pub const FILE_NAME: HeaderName = HeaderName::from_static("x-file-name");
/// When it was uploaded.
pub const FILE_CREATED: HeaderName = HeaderName::from_static("x-file-created-at");
/// Until when new jobs can bring it.
pub const FILE_EXPIRES: HeaderName = HeaderName::from_static("x-file-expires-at");

/// What needs no quoting in a header (RFC 8187).
#[cfg(feature = "server")]
const PLAIN: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A name for a header.
#[cfg(feature = "server")]
pub fn encoded_name(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, PLAIN).to_string()
}

/// A name out of a header.
pub fn decoded_name(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Where a file's bytes are. Relative: only its reader knows by which name it reaches the server.
pub fn file_url(id: FileId) -> String {
    format!("/uploads/{id}.zip")
}

/// The file that a URL stands for, if it is one that a server gives out: a path, or with the server before it. Which server does
/// not matter, since the digest says which bytes are meant.
pub fn file_of(url: &str) -> Option<FileId> {
    let path = match url.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').and_then(|at| rest.get(at..))?,
        Some(_) => return None,
        None => url,
    };
    let path = path.split(['?', '#']).next()?;
    if let Some(id) = path.strip_prefix("/api/files/download/") {
        return id.parse().ok();
    }
    let file = path.strip_prefix("/uploads/")?;
    let id = match file.split_once('/') {
        Some((id, name)) if !name.is_empty() && !name.contains('/') => id,
        Some(_) => return None,
        None => file.strip_suffix(".zip")?,
    };
    id.parse().ok()
}

impl From<&StoredFile> for Stored {
    fn from(file: &StoredFile) -> Self {
        let id = file.id.to_string();
        Self {
            filename: file.name.clone(),
            size: file.size,
            sha256: id.clone(),
            file_url: file_url(file.id),
            created_at: Time(file.created),
            expires_at: file.expires.map(Time),
            file_id: id,
        }
    }
}

#[cfg(feature = "client")]
impl Stored {
    /// The file as the service gave it; `None` if the answer makes no sense.
    pub fn into_stored(self) -> Option<StoredFile> {
        Some(StoredFile {
            id: self.file_id.parse().ok()?,
            name: self.filename,
            size: self.size,
            created: self.created_at.0,
            expires: self.expires_at.map(|Time(at)| at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_each_of_its_urls() {
        let id = FileId::from_sha256([0xab; 32]);
        assert_eq!(file_of(&file_url(id)), Some(id));
        for path in [
            format!("/uploads/{id}/a.zip"),
            format!("/api/files/download/{id}"),
            format!("/uploads/{id}.zip?x=1"),
            format!("https://here.example:3000/uploads/{id}.zip"),
        ] {
            assert_eq!(file_of(&path), Some(id), "{path}");
        }
        for path in [
            "",
            "/uploads/",
            "/uploads/x.zip",
            &format!("/uploads/{id}"),
            &format!("/uploads/{id}/a/b"),
            &format!("/x/uploads/{id}.zip"),
            &format!("ftp://here/uploads/{id}.zip"),
            "https://here.example",
        ] {
            assert_eq!(file_of(path), None, "{path}");
        }
    }
}
