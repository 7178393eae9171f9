"""One model on the web: as events for a page of your own, for `useChat`, and for OpenAI's clients.

pip install 'streamfold[web]' && python examples/web.py, then open http://127.0.0.1:8000, or

curl -N http://127.0.0.1:8000/answer?q=Hello
curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \
  -d '{"model": "parrot", "messages": [{"role": "user", "content": "Hello"}]}'
"""

import contextlib
from collections.abc import AsyncIterator

import uvicorn
from example_model import example_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from streamfold.integrations.web import KeptStreams, StreamResponse, gateway, messages_from_ui

PAGE = """<!doctype html><meta charset="utf-8"><title>streamfold</title>
<form><input name="q" value="Why do parrots talk?" size="40"> <button>Ask</button></form><p></p>
<script>
document.forms[0].onsubmit = submit => {
  submit.preventDefault();
  const answer = document.querySelector("p"), asked = new FormData(submit.target);
  answer.textContent = "";
  const events = new EventSource("/answer?" + new URLSearchParams(asked));
  events.onmessage = message => {
    const event = JSON.parse(message.data);
    if (event.type == "text-delta") answer.textContent += event.text;
    if (event.type == "stream-error") answer.textContent += ` [${event.error.message}]`;
    if (event.type.startsWith("stream-")) events.close();
  };
};
</script>"""

model = example_model()
streams = KeptStreams()  # a browser that loses its connection goes on where it was


async def answer(request: Request) -> Response:
    return streams.response(request, lambda: model.astream(request.query_params["q"]))


async def chat(request: Request) -> Response:
    """What `useChat` of Vercel's AI SDK asks."""
    asked = await request.json()
    return StreamResponse(model.astream(messages_from_ui(asked["messages"])), "vercel")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with streams:
        yield


routes = [
    Route("/", lambda _: HTMLResponse(PAGE)),
    Route("/answer", answer),
    Route("/api/chat", chat, methods=["POST"]),
    Mount("/", gateway({"parrot": model})),
]
app = Starlette(routes=routes, lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, port=8000)
