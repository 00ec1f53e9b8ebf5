//! Lists of objects, which come in pages.

use kube::api::{ListParams, ObjectList};

/// Objects of one answer.
const PAGE: u32 = 500;

/// All there are with these labels, and the version they are of; `page` asks for one page.
pub async fn pages<K: Clone, F>(selector: &str, page: impl Fn(ListParams) -> F) -> Result<(Vec<K>, String), kube::Error>
where
    F: Future<Output = Result<ObjectList<K>, kube::Error>>,
{
    let mut all = Vec::new();
    let mut wanted = ListParams::default().labels(selector).limit(PAGE);
    loop {
        let page = page(wanted.clone()).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => wanted = wanted.continue_token(&token),
            None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}
