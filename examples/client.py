"""Draw several prompts at once and save the pictures: python examples/client.py [URL]

Needs httpx and a server (make serve). The generations are in flight together, so they share the
server's denoising steps.
"""

import asyncio
import sys

import httpx

PROMPTS = ("a red circle on a blue background", "a green square", "a yellow triangle")


async def draw(client: httpx.AsyncClient, number: int, prompt: str) -> None:
    answer = await client.post(
        "/v1/generations", json={"prompt": prompt, "seed": number}, headers={"Prefer": "wait=60"}
    )
    answer.raise_for_status()
    record = answer.json()
    while record["status"] in ("queued", "running"):  # 202: not finished within the wait
        await asyncio.sleep(1)
        record = (await client.get(record["urls"]["self"])).json()
    if record["status"] != "succeeded":
        print(f"{prompt}: {record['status']}, {record['error']}")
        return
    image = await client.get(record["images"][0]["url"])
    name = f"picture-{number}.png"
    with open(name, "wb") as file:
        file.write(image.content)
    metrics = record["metrics"]
    print(
        f"{name}: {prompt}, {metrics['total_seconds']:.1f} s, "
        f"{metrics['mean_batch_rows']:.1f} rows in a step on average"
    )


async def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    async with httpx.AsyncClient(base_url=url, timeout=90) as client:
        await asyncio.gather(*(draw(client, i, prompt) for i, prompt in enumerate(PROMPTS, 1)))


asyncio.run(main())
