"""A hook of mkdocs: files of the repository that a page links to are part of the site, at their own paths.

On disk and on a code host the links of docs/ lead to the repository's files as they stand (../tools/results/demo.json). A site has
docs/ alone, so PAGES and the files that pages link to are added to it. A link to a folder becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "tools/results/README.md")
ELSEWHERE = {"README.md": "index.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)")


def linked(page: Path) -> set[Path]:
    """The repository's files that a page links to, those of docs/ left out."""
    targets = {(page.parent / link).resolve() for _, _, link, _ in LINK.findall(page.read_text(encoding="utf-8"))}
    return {target for target in targets if target.is_file() and target.suffix != ".md" and DOCS not in target.parents}


def on_files(files: Any, config: Any) -> Any:
    """Adds PAGES and every linked file to the site's files."""
    from mkdocs.structure.files import File

    added = {ROOT / name for name in PAGES}
    for page in [*DOCS.glob("*.md"), *added]:
        added |= linked(page)
    for path in sorted(added):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with its links made to lead within the site."""
    source = page.file.src_uri
    here = ROOT / source if source in PAGES else DOCS / source

    def within(match: re.Match) -> str:
        image, text, link, anchor = match.groups()
        target = (here.parent / link).resolve()
        name = target.relative_to(DOCS if DOCS in target.parents else ROOT).as_posix()
        name = ELSEWHERE.get(name, name)
        if files.get_file_from_path(name) is None:
            return text
        return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(source) or '.')}{anchor or ''})"

    return LINK.sub(within, markdown)
