"""Makes the pictures of reports that the documents show.

    python deploy/experiments/screenshots.py results/openb docs/images/openb.png

Needs a Chromium that runs without a window (Debian: chromium-headless-shell) and Pillow, which matplotlib brings along. The
picture is the upper part of report.html.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.Image import Quantize

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
WIDTH, HEIGHT = 1200, 1500


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"error: none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as home:
        shot = Path(home) / "shot.png"
        # No sandbox: it needs rights that containers do not have, and the page is our own.
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={home}/profile"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", (folder / "report.html").resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.open(shot).convert("RGB").resize((WIDTH * 3 // 4, HEIGHT * 3 // 4)).quantize(128, Quantize.MAXCOVERAGE).save(out)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
