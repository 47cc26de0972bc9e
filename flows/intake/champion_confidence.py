"""Ask this pipeline's serving engine how sure the champion is of an answer, for the abuse check of an ingest."""

from __future__ import annotations

from deploy.engines import SERVING_ENGINES
from deploy.engines.confidence import champion_confidence
from feedback.abuse.confidence import Confidence
from flows.config.pipeline import PipelineConfig
from training.base_model import Base


def confidence_of(config: PipelineConfig, base: Base) -> Confidence | None:
    """The function that the abuse check asks; None while no engine answers, or where nobody is judged."""
    if not config.ingest.abuse.enabled:
        return None
    url = config.serving.engine_url or config.places.engine_url
    return champion_confidence(config.places, base, url, SERVING_ENGINES.named(config.serving.engine))
