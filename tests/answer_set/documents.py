"""The documents of the set as files that people have. `NAME.pdf.txt` holds the pages of a PDF, which is made here."""

from pathlib import Path

FOLDER = Path(__file__).with_name("documents")
PAGE_BREAK = "\nPAGE\n"
FONT_SIZE, LEADING, LEFT, TOP = 10, 13, 56, 780


def libraries() -> tuple[str, ...]:
    """The libraries: each belongs to a tenant of its own."""
    return tuple(sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))


def of_library(library: str) -> dict[str, bytes]:
    """Name and content of each document."""
    found = {}
    for path in sorted((FOLDER / library).iterdir()):
        if path.name.endswith(".pdf.txt"):
            found[path.name.removesuffix(".txt")] = pdf(path.read_text().split(PAGE_BREAK))
        else:
            found[path.name] = path.read_bytes()
    return found


def pdf(pages: list[str]) -> bytes:
    """A plain PDF of these pages, line by line in Helvetica."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        stream = _page(page)
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        bodies.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, start)
    return bytes(out)


def _page(text: str) -> bytes:
    lines = [f"BT /F1 {FONT_SIZE} Tf {LEADING} TL {LEFT} {TOP} Td".encode()]
    for line in text.strip("\n").split("\n"):
        raw = line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        lines.append(b"(%s) Tj T*" % raw)
    return b"\n".join([*lines, b"ET"])
