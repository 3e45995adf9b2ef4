"""A page read as a browser reads it: elements, attributes and text, without a browser."""

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import numpy.typing as npt
from PIL import Image

_EMPTY = {"meta", "img", "input", "br", "rect"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(each if isinstance(each, str) else each.text for each in self.children)

    def all(self, tag: str, **attributes: str) -> "list[Element]":
        """Those inside of a tag, with such attributes; ``class_`` for one of the classes."""
        found = []
        for each in self.children:
            if isinstance(each, Element):
                classes = each.attributes.get("class", "").split()
                wanted = all(
                    value in classes if name == "class_" else each.attributes.get(name) == value
                    for name, value in attributes.items()
                )
                found += [each] * (each.tag == tag and wanted) + each.all(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> "Element":
        return self.all(tag, **attributes)[0]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: "list[tuple[str, str | None]]") -> None:
        made = Element(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(made)
        if tag not in _EMPTY:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attributes: "list[tuple[str, str | None]]") -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    """The root; every tag is closed where it should be."""
    reader = _Reader()
    reader.feed(page)
    assert reader.open == [reader.root]
    return reader.root


def pixels(address: str) -> npt.NDArray[np.float64]:
    """(H, W, 4) in [0, 1] of a picture inside a page."""
    kind, _, data = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float64) / 255
