"""OpenAI's own SDK draws here instead: python examples/openai_sdk.py [URL]

Needs openai (pip install openai) and a server (make serve). Whatever takes a base URL and a key for
OpenAI takes this one too; OPENAI_BASE_URL=http://127.0.0.1:8000/v1 does without any change.
"""

import base64
import sys

import openai


def save(name: str, picture: str | None) -> None:
    with open(name, "wb") as file:
        file.write(base64.b64decode(picture or ""))
    print(name)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none-needed")
    print("models:", ", ".join(model.id for model in client.models.list()))

    # Every field of POST /v1/generations may go into extra_body.
    stream = client.images.generate(
        prompt="a red circle on a blue background",
        stream=True,
        partial_images=2,
        extra_body={"seed": 7, "num_inference_steps": 30},
    )
    for event in stream:
        if event.type == "image_generation.partial_image":
            save(f"glimpse-{event.partial_image_index}.jpg", event.b64_json)
        else:
            save("picture.png", event.b64_json)

    with open("picture.png", "rb") as picture:
        answer = client.images.edit(
            image=picture,
            prompt="a yellow star on a blue background",
            quality="high",  # means nothing here, which the answer says
            extra_body={"strength": 0.9},
        )
    save("edited.png", answer.data[0].b64_json)
    for warning in answer.warnings:
        print("warning:", warning["message"])


main()
