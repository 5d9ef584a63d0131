//! Forms (`multipart/form-data`) with a file in them: read in one pass, the file never whole in memory.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::ByteStream;
use futures_util::stream::try_unfold;
use multer::{Field, Multipart};

use super::body::SPEC;

/// The field that has the file.
const FILE: &str = "file";

/// The other fields, by their names, in their order. Complete once the file's stream has ended.
pub(super) type Texts = Arc<Mutex<Vec<(String, String)>>>;

/// A form, read up to its file.
pub(super) struct Form {
    /// The file's own name and its bytes; none if no field is a file.
    pub(super) file: Option<(Option<String>, ByteStream)>,
    pub(super) texts: Texts,
}

/// Reads a form up to its file. The file's stream reads the rest, and fails if there is another file.
pub(super) async fn begin(bytes: ByteStream, boundary: &str) -> Result<Form, Error> {
    let mut form = Multipart::new(bytes, boundary);
    let texts = Texts::default();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        if field.name() != Some(FILE) {
            text(field, &texts).await?;
            continue;
        }
        let name = field.file_name().map(str::to_owned);
        let behind = Arc::clone(&texts);
        let bytes = try_unfold((field, form), move |(field, form)| {
            let texts = Arc::clone(&behind);
            async move { next(field, form, &texts).await }
        });
        return Ok(Form { file: Some((name, Box::pin(bytes))), texts });
    }
    Ok(Form { file: None, texts })
}

async fn next(
    mut file: Field<'static>,
    mut form: Multipart<'static>,
    texts: &Texts,
) -> Result<Option<(Bytes, (Field<'static>, Multipart<'static>))>, Error> {
    if let Some(piece) = file.chunk().await.map_err(malformed)? {
        return Ok(Some((piece, (file, form))));
    }
    // The form gives the next field only once this one is gone.
    drop(file);
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        if field.name() == Some(FILE) {
            return Err(Error::invalid(FILE, "is given twice: one file a request"));
        }
        text(field, texts).await?;
    }
    Ok(None)
}

/// Notes a field that is no file. Another file than the one is nobody's, and passed over.
async fn text(mut field: Field<'_>, texts: &Texts) -> Result<(), Error> {
    if field.file_name().is_some() {
        return Ok(());
    }
    let name = field.name().unwrap_or_default().to_owned();
    let room = {
        let texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
        SPEC.saturating_sub(texts.iter().map(|(name, text)| name.len() + text.len() + 64).sum())
    };
    let mut value = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(malformed)? {
        if name.len() + value.len() + piece.len() + 64 > room {
            return Err(Error::invalid(
                name,
                format!("is too large: the fields beside the file may have {SPEC} bytes together"),
            ));
        }
        value.extend_from_slice(&piece);
    }
    let value = String::from_utf8(value).map_err(|_| Error::invalid(name.clone(), "must be UTF-8"))?;
    texts.lock().unwrap_or_else(PoisonError::into_inner).push((name, value));
    Ok(())
}

fn malformed(error: multer::Error) -> Error {
    match error {
        // Whoever read the body knows why it ended, and says that instead.
        multer::Error::StreamReadFailed(_) => Error::Internal,
        error => Error::invalid("body", format!("is not the form that it says: {error}")),
    }
}

/// The boundary of a form, by its content type.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    multer::parse_boundary(content_type).ok()
}
