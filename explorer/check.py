"""Compares the digits of the explorer page with torch's and tries its controls, in Chromium.

    python -m explorer.check [RUN]        needs Chromium (apt-get install chromium)

For 100 latents no pixel may differ by more than one gray level. Exit status 1 if one does, or if a
control does not lead to its latent.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import sample
from explorer import export

COMPARE = """
<script>
const {latents, images} = %s;
let largest = 0, differing = 0;
latents.forEach((latent, i) => generate(latent).forEach((gray, pixel) => {
  const difference = Math.abs(gray - images[i][pixel]);
  largest = Math.max(largest, difference);
  differing += difference > 0;
}));
const failed = [];
const expect = (control, works) => { if (!works) failed.push(control); };
document.querySelectorAll("#digits button:enabled").forEach((button) => {
  const before = Array.from(z), count = data.categories.length;
  button.click();
  const isShown = (latent) => latent.every((value, i) => Math.fround(value) === z[i]);
  const category = z.indexOf(data.length);
  expect(`button ${button.textContent}`, count
    ? data.categories[category] == button.textContent && isShown(inCategory(before, category))
    : data.digits[button.textContent].some(isShown));
});
directions.forEach((slider, i) => {
  slider.value = 1;
  slider.dispatchEvent(new Event("input"));
  expect(`direction ${i + 1}`, Math.abs(dot(z, data.directions[i]) - 1) < 0.01);
});
saveAddress();
expect("address", addressLatent()?.every((value, i) => Math.abs(value - z[i]) < 0.006));
document.title = `largest ${largest} differing ${differing} failed ${failed}`;
</script>
"""


def main(run: list[str]) -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("explorer.check: there is no Chromium here")
    with tempfile.TemporaryDirectory() as folder:
        page, arrays = Path(folder, "explorer.html"), Path(folder, "samples.npz")
        export.main([*run, "--out", str(page)])
        sample.main([*run, "--arrays", "100", "--seed", "1", "--out", str(arrays)])
        with np.load(arrays) as loaded:
            latents, images = loaded["latents"].tolist(), loaded["images"].reshape(100, -1).tolist()
        compare = COMPARE % json.dumps({"latents": latents, "images": images})
        page.write_text(page.read_text() + compare)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        options += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        command = [chromium, *options, "--dump-dom", page]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>largest (\d+) differing (\d+) failed (.*)</title>", done.stdout)
    if not found:
        print("the page's script failed")
        return 1
    largest, differing, failed = int(found[1]), found[2], found[3]
    print(f"100 digits: {differing} of 78400 pixels differ from torch's, by at most {largest}")
    if failed:
        print(f"these controls fail: {failed}")
    return int(largest > 1 or bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
