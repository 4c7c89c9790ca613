#!/usr/bin/env python3
"""Whether the built book holds together: each link, anchor and picture in it leads somewhere, and nothing is fetched from elsewhere.

    book.py target/book
"""
import html.parser, pathlib, sys, urllib.parse

BOOK = pathlib.Path(sys.argv[1]).resolve()
# What leads from a page somewhere, and what a browser fetches by itself.
LEADS, FETCHES = {("a", "href")}, {("img", "src"), ("script", "src"), ("link", "href"), ("object", "data")}


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if (tag, name) in LEADS and value:
                self.links.append(value)
            if (tag, name) in FETCHES and value:
                self.fetched.append(value)


pages = {path: Page(path.read_text()) for path in BOOK.rglob("*.html")}
wrong, seen = [], 0
for path, page in pages.items():
    # It is for any place of a server: its links are from the root.
    root = BOOK if path.name == "404.html" else path.parent
    for link in page.links + page.fetched:
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            if link in page.fetched and url.scheme != "data":
                wrong.append(f"{path.name} fetches {link}")
            continue
        seen += 1
        target = (root / urllib.parse.unquote(url.path)).resolve() if url.path else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(BOOK) or not target.exists():
            wrong.append(f"{path.name}: {link} leads nowhere")
        elif url.fragment and target in pages and urllib.parse.unquote(url.fragment) not in pages[target].ids:
            wrong.append(f"{path.name}: {link}: no such place in the page")
print("\n".join(sorted(set(wrong))) or f"{len(pages)} pages, {seen} links, each leads somewhere")
sys.exit(bool(wrong) or not seen)
