"""transformers' `generate` behind FastAPI, for bench_serve.py: /v1/completions, one request after the other.

--model=FOLDER: published weights with their tokenizer. Needs torch, transformers, fastapi and uvicorn.
"""

import argparse
import threading

import fastapi
import torch
import transformers
import uvicorn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    app, turn = fastapi.FastAPI(), threading.Lock()

    @app.get("/healthz")
    def health():
        return {"status": "ok"}

    @app.post("/v1/completions")
    def completions(form: dict):
        prompt = tokenizer(form["prompt"], return_tensors="pt")
        with turn, torch.no_grad():  # side by side they only take each other's caches
            new = model.generate(**prompt, max_new_tokens=form["max_tokens"], do_sample=False, pad_token_id=0)
        new = new[0, prompt["input_ids"].shape[1] :]
        return {"choices": [{"text": tokenizer.decode(new)}], "usage": {"completion_tokens": len(new)}}

    uvicorn.run(app, port=a.port, log_level="warning")


if __name__ == "__main__":
    main()
