"""A completions server that takes and gives token ids and takes new weights, over our decoder: what vLLM is on a GPU.

Its paths, fields and answers are those of vLLM 0.1x (`/v1/load_lora_adapter`, `/v1/unload_lora_adapter`,
`/collective_rpc` with reload_weights, `/reset_prefix_cache`). An adapter is opened by PEFT and not by our code.
"""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from trainer.decoding import LocalEngine, SampleRequest
from trainer.models import load_tokenizer

Reply = tuple[int, Any]


class Listener(ThreadingHTTPServer):
    request_queue_size = 256  # connections that wait to be taken: a step's come at once, and beyond it they are lost


class PolicyServer:
    """Serves the policy in a folder; keeps what it was asked. Tests make it forget, refuse and fail."""

    def __init__(self, policy: Path) -> None:
        self.policy = policy
        self.tokenizer = load_tokenizer(policy)
        self.restart()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.disturb: Callable[[str, dict[str, Any]], Reply | None] = lambda path, body: None
        self._decoding = threading.Lock()  # one completion after another: a decoder has one batch at a time
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.keys.append(self.headers["Authorization"])
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    status, content = server.answer(self.path, body)
                except ConnectionAbortedError:  # a test plays a server that dies
                    self.close_connection = True
                    return
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: tests look at what was asked."""

        self._http = Listener(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def restart(self) -> None:
        """It has the weights that it was started with, and no adapters."""
        self.reloaded = open_model(self.policy)
        self.served: dict[str, PreTrainedModel] = {str(self.policy): self.reloaded}

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        self.asked.append((path, body))
        disturbed = self.disturb(path, body)
        if disturbed is not None:
            return disturbed
        match path:
            case "/v1/completions":
                return self.complete(body)
            case "/v1/load_lora_adapter":
                return self.load_adapter(body["lora_name"], Path(body["lora_path"]))
            case "/v1/unload_lora_adapter":
                known = self.served.pop(body["lora_name"], None)
                return (404, {"error": "no such adapter"}) if known is None else (200, "Success")
            case "/collective_rpc" if body["method"] == "reload_weights":
                self.reloaded = open_model(Path(body["kwargs"]["weights_path"]))
                return 200, {"results": [None]}
            case "/reset_prefix_cache":  # until then prompts that it knows are what the weights before made of them
                self.served[str(self.policy)] = self.reloaded
                return 200, {}
        return 404, {"detail": "Not Found"}

    def load_adapter(self, name: str, path: Path) -> Reply:
        if name in self.served:
            return 400, {"error": f"The lora adapter '{name}' has already been loaded."}
        model = PeftModel.from_pretrained(open_model(self.policy), path).merge_and_unload()
        self.served[name] = model
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def complete(self, body: dict[str, Any]) -> Reply:
        model = self.served.get(body["model"])
        if model is None:
            return 404, {"error": f"The model `{body['model']}` does not exist."}
        assert body["return_token_ids"]
        request = SampleRequest(
            prompt_ids=body["prompt"],
            seeds=[body["seed"]],
            max_completion_tokens=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
        )
        with self._decoding:
            [[completion]] = LocalEngine(model, self.tokenizer).sample([request])
        choice = {
            "text": self.tokenizer.decode(completion.token_ids),
            "finish_reason": completion.finish_reason,
            "token_ids": completion.token_ids,
            "logprobs": {"token_logprobs": completion.logprobs},
        }
        return 200, {"choices": [choice]}


def open_model(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


@pytest.fixture
def policy_server(llama_folder: Path) -> Iterator[PolicyServer]:
    server = PolicyServer(llama_folder)
    yield server
    server.close()
