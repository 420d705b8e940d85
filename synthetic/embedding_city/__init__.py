"""Simulated cities without pictures: passages of people at cameras, with the features an embedder would give."""

from synthetic.embedding_city.generator import EmbeddingCity, PassageBatch, embedding_city
from synthetic.embedding_city.settings import EmbeddingCitySettings

__all__ = ["EmbeddingCity", "EmbeddingCitySettings", "PassageBatch", "embedding_city"]
