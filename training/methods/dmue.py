"""DMUE (She et al., CVPR 2021): latent distributions from auxiliary branches, and pairwise uncertainty.

Branch i is a copy of the encoder's last stage with a classifier of all classes but i: what it says of faces
labelled i is what else they could be. Formulas: the supplement's Eq. 2-5 and systems §3.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, normalize, one_hot

from edge_fer.errors import TrainingError
from training.methods.distillation import neighbourhoods
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.modes import eval_mode
from training.models import ExpressionNetwork, MapEncoder, standardise

LATENTS = ("negatives", "average")
SIMILARITIES = ("supplement", "code")
RANGE_FLOOR = 1e-6  # below this the similarities of a face to all classes are the same
CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DmueOptions:
    """The published constants, `ramp_epochs` RAF-DB's (AffectNet 6, FER+ 12).

    `latent` is negatives (LD-N, the method) or average (LD-A, the ablation: every branch knows all classes
    and learns from every face, and the mean of their answers is mined). `temperature` is T. `neck` gives the
    auxiliary branches a shared BatchNorm before their classifiers; it belongs with encoders whose pooling
    normalises. `similarity` is the form of the similarity-preserving loss: supplement (features of whole
    batches, masked) or code (cheaper: branches see only the faces they learn from, and their logits are
    compared). `omega` and `gamma` weight the latent distributions and the similarities. The target branch's
    weight rises until epoch `ramp_epochs` (beta), by exp(-`ramp_factor` (1 - e / beta)^2), that of the
    auxiliary branches falls from there on.
    """

    latent: str = "negatives"
    temperature: float = 1.2
    dropout: float = 0.5
    neck: bool = True
    similarity: str = "supplement"
    omega: float = 0.5
    gamma: float = 1000.0
    ramp_epochs: int = 9
    ramp_factor: float = 5.0


def rules(options: DmueOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    o = options
    least = {"omega": o.omega, "gamma": o.gamma, "ramp_factor": o.ramp_factor}
    return (
        ("latent", o.latent, " or ".join(LATENTS), o.latent in LATENTS),
        ("temperature", o.temperature, "above 0", 0.0 < o.temperature < math.inf),
        ("dropout", o.dropout, "from 0 to below 1", 0.0 <= o.dropout < 1.0),
        ("similarity", o.similarity, " or ".join(SIMILARITIES), o.similarity in SIMILARITIES),
        ("ramp_epochs", o.ramp_epochs, "of 1 or more", o.ramp_epochs >= 1),
        *((name, value, "of 0 or more", 0.0 <= value < math.inf) for name, value in least.items()),
    )


def ramp_up(epoch: int, ramp_epochs: int, factor: float = 5.0) -> float:
    """Return w_u = exp(-factor (1 - e / beta)^2) up to epoch beta, then 1; epochs count from 0."""
    return math.exp(-factor * (1.0 - epoch / ramp_epochs) ** 2) if epoch <= ramp_epochs else 1.0


def ramp_down(epoch: int, ramp_epochs: int) -> float:
    """Return w_d = 1 before epoch beta, then exp(-(1 - beta / e)^2)."""
    return 1.0 if epoch < ramp_epochs else math.exp(-((1.0 - ramp_epochs / epoch) ** 2))


def without_class(labels: torch.Tensor, branch: int) -> torch.Tensor:
    """Return labels (B,), none of them `branch`, as the classes of that branch: those above move down."""
    return labels - (labels > branch).to(labels.dtype)


def with_class(negatives: torch.Tensor, branch: int) -> torch.Tensor:
    """Return a branch's distributions (B, N - 1) over all N classes, 0 at its own."""
    zero = torch.zeros_like(negatives[:, :1])
    return torch.cat([negatives[:, :branch], zero, negatives[:, branch:]], dim=1)


def sharpen(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return p^(1/T) / sum p^(1/T) of distributions (B, N); T above 1 flattens them."""
    powered = probabilities ** (1.0 / temperature)
    return powered / powered.sum(dim=-1, keepdim=True)


def soft_loss(logits: torch.Tensor, latent: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """Return L_soft, the mean over all B N entries of (softmax(z) masked to 0 at the label - latent)^2.

    Args:
        logits: (B, N) z of the target branch. latent: (B, N).
        labels: (B,); None leaves softmax(z) unmasked, as distributions over all classes need it.
    """
    probabilities = logits.softmax(dim=-1)
    if labels is not None:
        probabilities = probabilities * (1 - one_hot(labels, logits.shape[-1]))
    return (probabilities - latent).square().mean()


def similarity_loss(target: torch.Tensor, auxiliary: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return one branch's part of L_sp: ||M * A_tar - M * A_aux||_F^2 / N_i^2 (supplement Eq. 2-5).

    A are the batch's inner products f f^T, every row scaled to length 1 over the whole batch. Equation 4
    sums over j where it uses i.

    Args:
        target: (B, D) features of the target branch. auxiliary: (B, E) of the auxiliary branch.
        kept: (B,) bool, the N_i faces whose rows and columns M leaves.
    """
    difference = neighbourhoods(target) - neighbourhoods(auxiliary)
    return difference[kept][:, kept].square().sum() / kept.sum() ** 2


def class_similarities(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return (B, N), the mean cosine of each face to the batch's faces of each class, itself included.

    The mean of the cosines to some faces is the product with the mean of their directions.

    Args:
        features: (B, D). labels: (B,), every class at least once.
    """
    directions = normalize(features, dim=1)
    members = one_hot(labels, classes).to(features.dtype)
    return directions @ (directions.T @ members / members.sum(dim=0))


def scaled(similarities: torch.Tensor) -> torch.Tensor:
    """Return the rows of (B, N) moved and stretched to 0..1."""
    low, high = similarities.aminmax(dim=1, keepdim=True)
    return (similarities - low) / (high - low).clamp_min(RANGE_FLOOR)


class UncertaintyEstimator(nn.Module):
    """u in 0..1 of faces, from their similarities to the classes of the batch and their labels.

    Low means ambiguous. The released optimiser never gets these weights; here they are trained.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        hidden = (nn.Linear(2 * classes, classes), nn.PReLU())
        self.layers = nn.Sequential(*hidden, nn.Linear(classes, 1), nn.Sigmoid())

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Map features (B, D) and labels (B,), every class at least once, to u (B,)."""
        similarities = scaled(class_similarities(features, labels, self.classes))
        given = one_hot(labels, self.classes).to(features.dtype)
        return self.layers(torch.cat([similarities, given], dim=1)).squeeze(1)  # type: ignore[no-any-return]


class Dmue(Method):
    """Auxiliary branches, latent distributions, pairwise uncertainty, similarity preserving, ramps.

    The paper's target branch is the network itself: its last stage, its pooling and its linear head, with
    the dropout of the paper before the head while training. The paper's BN-neck, one for all branches, is
    here the auxiliary branches' own; the target's is the BatchNorm in the encoder's pooling where there is
    one. So a checkpoint needs nothing of the method, and the auxiliary branches do not move the statistics
    the network infers with. The head has a bias, which the paper's has not.

    A batch needs two faces of every class; the released code leaves out any other. Here such a batch, however
    many classes are short, trains the target branch alone: `total` is w_u times the plain cross-entropy,
    soft, similarity and auxiliary are 0, and no branch, neck or uncertainty gets a gradient. `complete` is 1
    where the batch had what it needs, 0 elsewhere. Use data.sampler = "balanced".

    Labels are taken as one-hot, as published, also where the data has votes.
    """

    name = "dmue"
    labels_alone = True

    def __init__(self, options: DmueOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        encoder, classes = map_encoder(network), faces.classes
        few = int(faces.counts().argmin())
        if faces.counts()[few] < 2 or classes < 3:
            raise TrainingError(
                f"method dmue: expected 3 or more classes with 2 or more training faces each, got {classes} "
                f"classes, {int(faces.counts()[few])} faces of {network.spec.labels[few]}; leave classes "
                "without faces out of network.classes, or choose another method"
            )
        self.options = options
        self.classes = classes
        self.branches = nn.ModuleList(copy.deepcopy(encoder.last) for _ in range(classes))
        width = encoder.map_channels
        self.neck: nn.Module = nn.Identity()
        if options.neck:
            self.neck = nn.BatchNorm1d(width)
            self.neck.bias.requires_grad_(False)
        known = classes if options.latent == "average" else classes - 1
        self.heads_of_branches = nn.ModuleList(nn.Linear(width, known, bias=False) for _ in range(classes))
        self.uncertainty = UncertaintyEstimator(classes)

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification (L_wce), soft, similarity, auxiliary, and whether the batch was complete."""
        encoder, options, labels = map_encoder(network), self.options, batch.labels
        images = standardise(batch.faces, network)
        trunk = encoder.trunk(images)
        maps = encoder.last(trunk)
        embedding = encoder.pool(maps)
        up = ramp_up(moment.epoch, options.ramp_epochs, options.ramp_factor)
        with torch.autocast(images.device.type, enabled=False):
            features = dropout(embedding.float(), options.dropout, self.training)
            logits = network.head(features).logits
        counts = torch.bincount(labels, minlength=self.classes)
        if counts.min() < 2:
            classification = cross_entropy(logits, labels)
            rest = dict.fromkeys(("soft", "similarity", "auxiliary", "complete"), logits.new_zeros(()))
            return {"total": up * classification, "classification": classification, **rest}
        # First with gradient: autocast would hand weights it cast without one to the pass that needs it.
        auxiliary, similarity = self.auxiliary_losses(trunk, features, labels)
        latent = self.mine(trunk, labels)
        with torch.autocast(images.device.type, enabled=False):
            certainty = self.uncertainty(maps.float().mean(dim=(2, 3)), labels)
            classification = cross_entropy(certainty[:, None] * logits, labels)
            soft = soft_loss(logits, latent, labels if options.latent == "negatives" else None)
        target = classification + options.omega * soft + options.gamma * similarity
        return {
            "total": up * target + ramp_down(moment.epoch, options.ramp_epochs) * auxiliary,
            "classification": classification,
            "soft": soft,
            "similarity": similarity,
            "auxiliary": auxiliary,
            "complete": logits.new_ones(()),
        }

    def auxiliary_losses(
        self, trunk: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return L_aux and L_sp, the means over the branches.

        Args:
            trunk: (B, C', h', w'). target: (B, D), what the target branch's classifier gets. labels: (B,).
        """
        whole = self.options.similarity == "supplement"
        losses, similarities = [], []
        for branch in range(self.classes):
            own = self.learnt(labels, branch)
            features = self.features(trunk if whole else trunk[own], branch)
            logits = self.logits(features, branch)
            known = labels[own]
            if self.options.latent == "negatives":
                known = without_class(known, branch)
            losses.append(cross_entropy(logits[own] if whole else logits, known))
            with torch.autocast(trunk.device.type, enabled=False):
                if whole:
                    similarities.append(similarity_loss(target, features, own))
                else:
                    similarities.append(similarity_loss(target[own], logits, torch.ones_like(own[own])))
        return torch.stack(losses).mean(), torch.stack(similarities).mean()

    def learnt(self, labels: torch.Tensor, branch: int) -> torch.Tensor:
        """Return which faces (B,) bool a branch learns from: those not of its class, in LD-A all."""
        return labels != branch if self.options.latent == "negatives" else torch.ones_like(labels).bool()

    def features(self, trunk: torch.Tensor, branch: int) -> torch.Tensor:
        """Return what a branch's classifier gets, (B, C) float32, with dropout while training."""
        maps = self.branches[branch](trunk)
        with torch.autocast(trunk.device.type, enabled=False):
            pooled = dropout(maps.float().mean(dim=(2, 3)), self.options.dropout, self.training)
            return self.neck(pooled)  # type: ignore[no-any-return]

    def logits(self, features: torch.Tensor, branch: int) -> torch.Tensor:
        """Return a branch's logits of its features (B, C), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.heads_of_branches[branch](features)  # type: ignore[no-any-return]

    @torch.no_grad()
    def mine(self, trunk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the latent distributions (B, N) of faces from the trunk's maps, with running statistics.

        Every face goes through the branch of its label, which never learns from such faces, and gets 0 at
        the label; in LD-A through all branches, and may get its label.
        """
        with eval_mode(self):
            if self.options.latent == "average":
                answers = [self.answer(trunk, branch) for branch in range(self.classes)]
                return sharpen(torch.stack(answers).mean(dim=0), self.options.temperature)
            latent = torch.zeros(len(labels), self.classes, device=trunk.device)
            for branch in range(self.classes):
                own = labels == branch
                if own.any():
                    said = sharpen(self.answer(trunk[own], branch), self.options.temperature)
                    latent[own] = with_class(said, branch)
        return latent

    def answer(self, trunk: torch.Tensor, branch: int) -> torch.Tensor:
        """Return a branch's distributions over the classes it knows."""
        return self.logits(self.features(trunk, branch), branch).softmax(dim=-1)


def map_encoder(network: ExpressionNetwork) -> MapEncoder:
    """Return the network's encoder.

    Raises:
        TrainingError: it has no last stage to copy.
    """
    if not isinstance(network.encoder, MapEncoder):
        raise TrainingError(
            f"method dmue: expected a network with a last stage to copy, got {network.spec.model}; set "
            "network.model to a convolutional one, for example grefel-lite"
        )
    return network.encoder


@torch.no_grad()
def latent_distributions(
    method: Dmue, network: ExpressionNetwork, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return what else faces could be than their labels say, (B, N) float32, 0 at the label.

    Args:
        images: (B, 3, S, S) normalised faces. labels: (B,) int64.
    """
    encoder = map_encoder(network)
    with eval_mode(network):
        parts = zip(images.split(CHUNK), labels.split(CHUNK), strict=True)
        return torch.cat([method.mine(encoder.trunk(part), given) for part, given in parts])


@torch.no_grad()
def uncertainties(
    method: Dmue, network: ExpressionNetwork, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return u of faces among each other, (B,) float32 in 0..1; the lower, the more ambiguous.

    Args:
        images: (B, 3, S, S) normalised faces. labels: (B,) int64, every class at least once.
    """
    encoder = map_encoder(network)
    with eval_mode(network, method):
        features = [encoder.forward_map(part).float().mean(dim=(2, 3)) for part in images.split(CHUNK)]
        return method.uncertainty(torch.cat(features), labels)  # type: ignore[no-any-return]
