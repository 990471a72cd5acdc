"""Draw with a client of the A1111 web UI, unchanged: python examples/webui.py [URL]

Needs webuiapi (pip install webuiapi) and a server (make serve).
"""

import sys

import webuiapi
from PIL import Image, ImageDraw

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
api = webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1", sampler="DPM++ 2M", steps=20)

drawn = api.txt2img(
    prompt="a (red:1.1) circle on a blue background", seed=7, width=128, height=128, cfg_scale=4
)
drawn.image.save("webui-1.png")
print("webui-1.png:", drawn.info["infotexts"][0].splitlines()[-1])

mask = Image.new("RGB", drawn.image.size, "black")
ImageDraw.Draw(mask).rectangle((24, 24, 104, 104), fill="white")
painted = api.img2img(
    images=[drawn.image],
    mask_image=mask,
    inpaint_full_res=False,
    prompt="a yellow star on a blue background",
    denoising_strength=0.95,
    seed=8,
    width=128,
    height=128,
    cfg_scale=4,
)
painted.image.save("webui-2.png")
print("webui-2.png: drawn over where the mask is white; models:", api.util_get_model_names())

for warning in painted.info["darkroom_warnings"]:
    print("ignored:", warning["message"])
