"""Open-Vocabulary SAM assembled: the one place where a variant's sizes become modules."""

from torch import nn

from export.network.adapter import Adapter
from export.network.attention_pool import AttentionPool
from export.network.backbone import Backbone
from export.network.feature_pyramid import FeaturePyramid
from export.network.mask_decoder import MaskDecoder
from export.network.prompt_encoder import PromptEncoder
from export.network.region_head import RegionHead
from export.network.text_encoder import TextEncoder
from export.variants import Variant


class OpenVocabularySam(nn.Module):
    """The parts of the network; `export.graphs` says in which order they run."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        channels, dim = variant.trunk.level_channels, variant.decoder.dim
        self.variant = variant
        self.backbone = Backbone(variant.trunk)
        self.adapter = Adapter(channels, variant.adapter, grid=variant.grid, out_dim=dim)
        self.feature_pyramid = FeaturePyramid(channels, dim)
        self.prompt_encoder = PromptEncoder(dim, input_size=variant.input_size, grid=variant.grid)
        self.mask_decoder = MaskDecoder(variant.decoder, grid=variant.grid)
        self.region_head = RegionHead(dim, variant.text_dim, cells=variant.head_cells)
        self.attention_pool = AttentionPool(channels[-1], variant.text_dim, cells=variant.clip_cells)
        self.text_encoder = TextEncoder(variant.text, out_dim=variant.text_dim)
