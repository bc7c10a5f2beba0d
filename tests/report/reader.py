"""What a page holds, as a browser would read it."""

import html.parser

HOSTILE = '<script>alert("1")</script>&amp;$x$'
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(html.parser.HTMLParser):
    """Collects text and tags, and insists that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @classmethod
    def of(cls, page):
        reader = cls()
        reader.feed(page)
        reader.close()
        assert reader.open == []
        reader.words = " ".join(" ".join(reader.text).split())
        return reader
