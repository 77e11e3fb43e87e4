"""The page for people that a served registry shows: what is held, whole in its text. The script on it copies a digest, and nothing depends on it."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass

from transfer.model import Image

_SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    document.getElementById("said").textContent = "copied " + button.dataset.copy;
  });
}
"""
_STYLE = """
:root{color-scheme:light dark;--line:#767676;--dim:#595959}
@media (prefers-color-scheme:dark){:root{--line:#8a8a8a;--dim:#a6a6a6}}
body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}
thead th{color:var(--dim);font-weight:600}tbody th{font-weight:600}
td.n{text-align:right;white-space:nowrap}td.d{white-space:nowrap}
div{overflow-x:auto}
tbody th{overflow-wrap:anywhere;min-width:13rem}
code{font-size:.8rem;white-space:nowrap}
button{font:inherit;font-size:.8rem;margin-right:.5rem;padding:0 .4rem}
p{margin:.25rem 0;color:var(--dim)}
"""


@dataclass(frozen=True, slots=True)
class HeldBundle:
    """A bundle that is served. `created`: seconds since 1970."""

    digest: str
    created: int
    images: int
    size: int


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


POLICY = f"default-src 'none'; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'; frame-ancestors 'none'"
"""The page's Content-Security-Policy: nothing but its own style and script."""


def page(images: Sequence[Image], bundles: Sequence[HeldBundle], under_way: int) -> str:
    """HTML: images by name, then bundles, the newest first."""
    rows = "\n".join(
        _image(names, image) for names, image in sorted((tuple(image.names), image) for image in images if image.names)
    )
    newest = sorted(bundles, key=lambda each: each.created, reverse=True)
    now = f"{_several(under_way, 'answer')} under way"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>transfer: images held here</title><style>{_STYLE}</style></head>
<body><main>
<h1>Images held here</h1>
<p>{_several(len(images), "image")} in {_several(len(bundles), "bundle")}; {now}. This registry is read-only.</p>
<p id="said" role="status" aria-live="polite"></p>
<h2 id="images">Images</h2>
<div role="region" aria-labelledby="images" tabindex="0"><table aria-labelledby="images">
<thead><tr><th scope="col">Name</th><th scope="col">Size</th><th scope="col">Platforms</th><th scope="col">Digest</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
<h2 id="bundles">Bundles</h2>
<div role="region" aria-labelledby="bundles" tabindex="0"><table aria-labelledby="bundles">
<thead><tr><th scope="col">Made</th><th scope="col">Images</th><th scope="col">Size</th><th scope="col">Digest</th></tr></thead>
<tbody>
{chr(10).join(map(_bundle, newest))}
</tbody></table></div>
</main><script>{_SCRIPT}</script></body></html>
"""


def _image(names: Sequence[str], image: Image) -> str:
    label = "<br>".join(html.escape(name) for name in names)
    platforms = html.escape(", ".join(map(str, image.platforms))) or "none (an artifact)"
    return f'<tr><th scope="row">{label}</th><td class="n">{_size(image.size)}</td><td>{platforms}</td>{_digest(image.root.digest)}</tr>'


def _bundle(each: HeldBundle) -> str:
    made = datetime.datetime.fromtimestamp(each.created, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f'<tr><th scope="row">{made}</th><td class="n">{each.images}</td><td class="n">{_size(each.size)}</td>{_digest(each.digest)}</tr>'


def _digest(digest: object) -> str:
    return f'<td class="d"><button type="button" hidden data-copy="{digest}" aria-label="Copy {str(digest)[7:19]}">Copy</button><code>{digest}</code></td>'


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
