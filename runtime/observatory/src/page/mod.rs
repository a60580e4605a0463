//! The page at `/`: plain files, embedded in the program. The browser gets them and `/api/v1`, and nothing from elsewhere.
//!
//! To add a file: beside the others, and a line in [`FILES`].

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, media type and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("index.html")),
    ("/app.css", CSS, include_str!("app.css")),
    ("/icon.svg", SVG, include_str!("icon.svg")),
    ("/app.js", SCRIPT, include_str!("app.js")),
    ("/chart.js", SCRIPT, include_str!("chart.js")),
    ("/dom.js", SCRIPT, include_str!("dom.js")),
    ("/events-list.js", SCRIPT, include_str!("events-list.js")),
    ("/findings-list.js", SCRIPT, include_str!("findings-list.js")),
    ("/format.js", SCRIPT, include_str!("format.js")),
    ("/rows.js", SCRIPT, include_str!("rows.js")),
    ("/store.js", SCRIPT, include_str!("store.js")),
    ("/stream.js", SCRIPT, include_str!("stream.js")),
    ("/view-container.js", SCRIPT, include_str!("view-container.js")),
    ("/view-containers.js", SCRIPT, include_str!("view-containers.js")),
    ("/view-events.js", SCRIPT, include_str!("view-events.js")),
    ("/view-findings.js", SCRIPT, include_str!("view-findings.js")),
    ("/view-namespaces.js", SCRIPT, include_str!("view-namespaces.js")),
];

/// What a browser may do with the page: run its files and ask this server, in no frame of anybody's. Should a string that
/// a container chose ever become markup, it would still not run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every file. `no-cache`: another version of the program brings other files.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The routes of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        router.route(
            path,
            get(move || async move {
                let mut response = axum::response::Response::new(axum::body::Body::from(text));
                let headers = response.headers_mut();
                for (name, value) in HEADERS {
                    headers.insert(name, HeaderValue::from_static(value));
                }
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT).map(|&(path, _, text)| (path, text))
    }

    #[test]
    fn every_file_that_a_file_names_is_served_and_none_is_from_elsewhere() {
        let served = |path: &str| FILES.iter().any(|(known, ..)| *known == path);
        for (path, text) in scripts() {
            for part in text.split("from \"").skip(1) {
                let name = part.split('"').next().unwrap_or_default();
                let there = name.strip_prefix('.').is_some_and(served);
                assert!(there, "{path} imports {name}");
            }
        }
        let (_, _, index) = FILES[0];
        for part in index.split("href=\"/").chain(index.split("src=\"/")).skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            if !part.starts_with("<!doctype") && !name.is_empty() && name.contains('.') {
                assert!(served(&format!("/{name}")), "the page names /{name}");
            }
        }
        for (path, _, text) in FILES {
            let elsewhere = text.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        }
    }

    #[test]
    fn no_script_makes_markup_of_text() {
        for (path, text) in scripts() {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{path}: {word}");
            }
        }
    }
}
