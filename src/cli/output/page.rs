//! The frame of pages for a browser: one file that needs nothing else, light and dark, wide and narrow.
//!
//! There is no script in it, and the policy in its head forbids every request. So a page can be attached to an incident and
//! opened anywhere, and no name in it is taken for markup.

/// No script runs, nothing is fetched, nothing is sent; styles are in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'";

/// The style of all pages. Colours have a contrast of at least 4.5 to 1 to their background (WCAG 2.1, 1.4.3).
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1f2328;--soft:#59636e;--line:#d1d9e0;--back:#fff;--card:#f6f8fa;\
--added:#116329;--removed:#b3202c;--replaced:#7d4e00;--changed:#0550ae;--warn:#fff8e6;--edge:#d4a72c}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#a0a8b1;--line:#3d444d;--back:#0d1117;--card:#151b23;\
--added:#56d364;--removed:#ff7b72;--replaced:#e3b341;--changed:#79c0ff;--warn:#272115;--edge:#9e6a03}}\
*{box-sizing:border-box}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem;overflow-wrap:anywhere}\
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{margin:.25rem 0}\
.soft{color:var(--soft)}.added{color:var(--added)}.removed{color:var(--removed)}.replaced{color:var(--replaced)}.changed{color:var(--changed)}\
.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}\
.cards div{flex:1 1 8rem;padding:.6rem .9rem;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}\
.cards b{display:block;font-size:1.5rem;line-height:1.2}\
.warn{border:1px solid var(--edge);border-left-width:.35rem;border-radius:.5rem;background:var(--warn);padding:.6rem 1rem;margin:1rem 0}\
.warn h2{margin:0 0 .25rem}.warn ul{margin:.25rem 0;padding-left:1.2rem}.warn li{margin:.25rem 0}\
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0 2rem;align-items:start}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--line);vertical-align:top}\
th{color:var(--soft);font-weight:600;font-size:.85rem}.n{text-align:right;overflow-wrap:normal}\
details,.row{border:1px solid var(--line);border-radius:.5rem;margin:.4rem 0;background:var(--card)}\
summary,.row{padding:.4rem .8rem}summary{cursor:pointer}\
pre{margin:0;padding:.6rem .8rem;border-top:1px solid var(--line);overflow-x:auto;font:13px/1.45 ui-monospace,monospace;overflow-wrap:normal;background:var(--back);border-radius:0 0 .5rem .5rem}\
@media(max-width:30rem){body{padding:1rem .75rem 3rem}tr{display:grid;grid-template-columns:repeat(auto-fit,minmax(5rem,1fr));border-bottom:1px solid var(--line)}\
th,td{border:0;padding:.15rem .25rem}th:first-child,td:first-child{grid-column:1/-1}}\
@media print{details{break-inside:avoid}}";

/// A page of this title and content. The content is markup: names in it went through [`escaped`].
pub(crate) fn page(title: &str, content: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{content}</body>\n</html>\n",
        escaped(title)
    )
}

/// Text as it is shown in markup and in the value of an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
