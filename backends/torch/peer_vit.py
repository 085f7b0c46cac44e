"""The ViT of timm, written after its structure: what a peer is where timm is not installed.

Source: huggingface/pytorch-image-models 1.0.31 (Apache-2.0), timm/models/vision_transformer.py: VisionTransformer with
class_token=False, global_pool="avg", fc_norm=False, and layers/attention.py with its fused attention.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from backends.models.mixer_spec import MixerSpec


class Attention(nn.Module):
    """Queries, keys and values by one product, and PyTorch's own attention."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x_bsc: Tensor) -> Tensor:
        batch, tokens, channels = x_bsc.shape
        qkv = self.qkv(x_bsc).reshape(batch, tokens, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed: Tensor = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, channels))
        return projected


class Block(nn.Module):
    """Attention, then an MLP, each behind a norm and beside a skip-connection."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x_bsc: Tensor) -> Tensor:
        x_bsc = x_bsc + self.attn(self.norm1(x_bsc))
        summed: Tensor = x_bsc + self.mlp(self.norm2(x_bsc))
        return summed


class VisionTransformer(nn.Module):
    """Patches, a position embedding, blocks, a norm, the mean over tokens, a head."""

    def __init__(self, model: MixerSpec):
        super().__init__()
        dim, patch = model.hidden_dim, model.patch_size
        self.patch_embed = nn.Conv2d(model.image_channels, dim, patch, patch)
        self.pos_embed = nn.Parameter(
            nn.init.trunc_normal_(self.patch_embed.weight.new_empty(1, model.num_patches, dim), std=0.02)
        )
        blocks = (Block(dim, model.num_heads, model.channels_mlp_dim) for _ in range(model.num_blocks))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, model.num_classes)

    def forward(self, images_bchw: Tensor) -> Tensor:
        x_bsc = self.patch_embed(images_bchw).flatten(2).transpose(1, 2) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(x_bsc)).mean(1))
        return logits
