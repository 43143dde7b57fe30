"""Puts what a benchmark measured into a page of the documentation."""

from pathlib import Path


def publish(page: Path, key: str, text: str) -> None:
    """Replace what stands between the two marks `key` of the page. Raises ValueError when it does not have them."""
    begin, end = f"<!-- {key}: written by the benchmark -->\n", f"<!-- {key}: end -->\n"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
