"""Makes the pictures of pages that the documents show.

    python deploy/experiments/screenshots.py results/openb docs/images/openb.png
    python deploy/experiments/screenshots.py rehearsal.html docs/images/rehearsal.png --height 900
    python deploy/experiments/screenshots.py results/NAME picture.png --from 1400 --height 900

A folder stands for its report.html. Needs Chromium (Debian: chromium, or chromium-headless-shell), which runs without a window,
and Pillow, which matplotlib brings along. The picture is a piece of the page: ``--height`` pixels from ``--from`` on.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from PIL.Image import Quantize

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
QUIET = (
    # No sandbox: it needs rights that containers do not have, and the page is our own.
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--allow-file-access-from-files",
)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1120)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--from", dest="top", type=int, default=0)
    parser.add_argument("--scale", type=float, default=0.75, help="of the picture, to the page's pixels")
    parser.add_argument("--hash", default="", help="what stands after # in the address")
    chosen = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"error: none of {', '.join(BROWSERS)} is installed")
    page = chosen.page / "report.html" if chosen.page.is_dir() else chosen.page
    address = page.resolve().as_uri() + (f"#{chosen.hash}" if chosen.hash else "")
    with tempfile.TemporaryDirectory() as home:
        shot = Path(home) / "shot.png"
        size = f"{chosen.width},{chosen.top + chosen.height}"
        command = [browser, *QUIET, f"--user-data-dir={home}/profile", f"--window-size={size}", f"--screenshot={shot}", address]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        whole = Image.open(shot).convert("RGB")
    piece = whole.crop((0, chosen.top, chosen.width, chosen.top + chosen.height))
    if chosen.scale != 1.0:
        piece = piece.resize((round(piece.width * chosen.scale), round(piece.height * chosen.scale)), Image.Resampling.LANCZOS)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    piece.quantize(128, Quantize.MAXCOVERAGE).save(chosen.out, optimize=True)
    print(f"{chosen.out}: {chosen.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
