"""Composition root of rag: retrievals and ingestions come in, `core.Rag` answers, `effects` acts."""

import httpx

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.rag.core import Rag, RetrievalOptions
from bulkhead_services.rag.effects import FileLibrary
from bulkhead_services.rag.settings import Settings


def build(context: Context, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> Rag:
    """The doer; nothing is opened before the first message. transport: of calls for vectors."""
    model = settings.embeddings_model if settings.embeddings_url else ""
    options = RetrievalOptions(settings.chunks_per_document, model, settings.embeddings_price_usd_micros_per_mtok or 0)
    return Rag(FileLibrary(settings, transport), options, context.verifier, context.clock)


if __name__ == "__main__":
    main("rag", build, Settings)
