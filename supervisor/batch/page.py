"""The frame of the contact sheet: document, style, light and dark.

Owns how the page looks; knows nothing of results. Whoever fills it has escaped what they give.
"""

from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --page: #f6f7f9; --tile: #fff; --line: #d9dde3; --ink: #1b1f24;
  --soft: #626b76; --mark: #2f6fde; --bad: #b3261e; --pre: #eef0f3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --tile: #1d2127; --line: #333a43;
  --ink: #e7eaee; --soft: #9aa4b0; --mark: #79a7ff; --bad: #ff8a80; --pre: #191d22; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 24px clamp(12px, 3vw, 40px) 48px; background: var(--page);
  color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
a { color: var(--mark); }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px;
  margin-bottom: 20px; }
h1 { margin: 0; font-size: 22px; overflow-wrap: anywhere; }
h2 { font-size: 17px; } h2 span, header p, .more { color: var(--soft); }
header p { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(176px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--tile); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; content-visibility: auto; contain-intrinsic-size: auto 200px auto 240px; }
figure a, .none { display: block; text-decoration: none; aspect-ratio: 1; background: var(--pre); }
.none { display: grid; place-items: center; color: var(--soft); }
img { display: block; width: 100%; height: 100%; object-fit: contain; color: var(--soft);
  font-size: 12px; }
figcaption { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 2px 8px;
  padding: 8px 10px 10px; }
.seen { font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.score { font-variant-numeric: tabular-nums; color: var(--soft); }
.bar { grid-column: 1 / -1; height: 3px; border-radius: 2px; background: var(--line); }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--mark); }
figcaption .name { grid-column: 1 / -1; color: var(--soft); font-size: 12px; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
section { margin-top: 36px; }
.row, details { background: var(--tile); border: 1px solid var(--line); border-radius: 8px;
  padding: 9px 12px; margin-bottom: 8px; overflow-wrap: anywhere; }
summary { cursor: pointer; }
.cause { color: var(--bad); font-family: ui-monospace, monospace; font-size: 13px;
  margin: 0 6px; }
pre { margin: 10px 0 2px; padding: 10px; border-radius: 6px; background: var(--pre);
  overflow-x: auto; font: 12px/1.5 ui-monospace, monospace; }
"""

FOOT: Final = "</body>\n</html>\n"


def head(title: str, summary: str) -> str:
    """Return the page up to its images; both texts are HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1><p>{summary}</p></header>\n"
    )
