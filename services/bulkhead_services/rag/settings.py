"""Knobs of rag. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Vectors are on when embeddings_url is set; its price must be named then: unpriced calls are refused.

    embeddings_url: an OpenAI-compatible base, e.g. http://127.0.0.1:8080/v1. Prices are micro US dollars per
    million tokens (0 for a model of your own). vector_scan_limit: exact search reads every vector, so a store
    that outgrows it says so in every reply instead of becoming slow.
    """

    rag_dir: Path | None = None
    chunks_per_document: int = Field(default=4, ge=1, le=20)
    parse_timeout_s: float = Field(default=20.0, gt=0, le=300)
    parse_memory_mib: int = Field(default=768, ge=128)
    embeddings_url: str = ""
    embeddings_model: str = "text-embedding-3-small"
    embeddings_key: SecretStr = SecretStr("")
    embeddings_price_usd_micros_per_mtok: int | None = Field(default=None, ge=0)
    embeddings_timeout_s: float = Field(default=10.0, gt=0, le=60)
    vector_scan_limit: int = Field(default=5_000, ge=0)

    @property
    def store_dir(self) -> Path:
        """Folder of the `<tenant>.sqlite` files."""
        return self.rag_dir or self.data_dir / "rag"

    @model_validator(mode="after")
    def _require_price(self) -> Self:
        if self.embeddings_url and self.embeddings_price_usd_micros_per_mtok is None:
            raise ValueError(
                "BULKHEAD_EMBEDDINGS_URL is set but its price is not, and an unpriced call cannot be "
                "reserved; set BULKHEAD_EMBEDDINGS_PRICE_USD_MICROS_PER_MTOK (0 for a model of your own)"
            )
        return self
