"""Writes torch.json: what PyTorch computes, in f64, for the cases of ../torch.rs.

Parameter k (in order of declaration) has the elements sin(0.37 i + 1.3 k) / 2, input j the elements
sin(0.61 i + 0.9 j + 0.2), i being the row-major index. The scalar that is differentiated is
sum(y cos(0.23 i)). A case is {y, dx (of each float input), dp (Euclidean norm of each parameter's gradient)}. Those of optimizers are described
below.

python3 generate.py > torch.json
"""

import json
import torch
import torch.nn as nn
import torch.nn.functional as F

D = torch.float64
torch.set_default_dtype(D)


def wave(shape, a, b):
    n = int(torch.tensor(shape).prod()) if shape else 1
    return torch.sin(a * torch.arange(n, dtype=D) + b).reshape(shape)


def fill(module, order=None):
    named = dict(module.named_parameters())
    params = [named[n] for n in order] if order else list(named.values())
    with torch.no_grad():
        for k, p in enumerate(params):
            p.copy_(wave(tuple(p.shape), 0.37, 1.3 * k) / 2)
    return params


def inputs(*shapes):
    return [wave(s, 0.61, 0.9 * j + 0.2).requires_grad_() for j, s in enumerate(shapes)]


def case(y, xs, params=()):
    n = y.numel()
    scalar = (y.reshape(-1) * torch.cos(0.23 * torch.arange(n, dtype=D))).sum()
    grads = torch.autograd.grad(scalar, list(xs) + list(params))
    dx, dp = grads[: len(xs)], grads[len(xs):]
    return {
        "y": y.reshape(-1).tolist(),
        "dx": [g.reshape(-1).tolist() for g in dx],
        "dp": [g.norm().item() for g in dp],
    }


cases = {}


def recurrent(name, module, lengths=None):
    params = fill(module)
    (x,) = inputs((3, 5, 2))
    if lengths is None:
        y, h = module(x)
    else:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        y, h = module(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=5)
    states = h if isinstance(h, tuple) else (h,)
    cases[name] = case(torch.cat([y.reshape(-1)] + [s.reshape(-1) for s in states]), [x], params)


recurrent("rnn", nn.RNN(2, 3, batch_first=True))
recurrent("rnn_relu", nn.RNN(2, 3, batch_first=True, nonlinearity="relu"))
recurrent("lstm", nn.LSTM(2, 3, batch_first=True))
recurrent("gru", nn.GRU(2, 3, batch_first=True))
recurrent("gru_bidirectional", nn.GRU(2, 3, batch_first=True, bidirectional=True))
recurrent("lstm_stacked", nn.LSTM(2, 3, batch_first=True, bidirectional=True, num_layers=2))
recurrent("lstm_lengths", nn.LSTM(2, 3, batch_first=True, bidirectional=True, num_layers=2), [5, 2, 3])
recurrent("gru_lengths", nn.GRU(2, 3, batch_first=True, bidirectional=True), [1, 5, 4])


def layer(name, module, *shapes, order=None, call=None):
    params = fill(module, order)
    xs = inputs(*shapes)
    cases[name] = case(call(module, *xs) if call else module(*xs), xs, params)


layer("dense", nn.Linear(4, 3), (2, 5, 4))
layer("conv1d", nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 9))
layer("conv3d", nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 3))
layer("conv_transpose2d", nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 3, 4))
layer("avg_pool", nn.AvgPool2d(3, 2, 1), (1, 2, 5, 6))
layer("adaptive_avg_pool", nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 7))
layer("adaptive_max_pool", nn.AdaptiveMaxPool2d((2, 3)), (1, 2, 5, 7))
layer("reflect", nn.ReflectionPad2d((2, 1, 1, 0)), (1, 2, 3, 4))
layer("replicate", nn.ReplicationPad2d((2, 1, 1, 0)), (1, 2, 3, 4))
layer("layer_norm", nn.LayerNorm(6), (2, 3, 6))
layer("rms_norm", nn.RMSNorm(6, eps=1e-5), (2, 3, 6))
layer("group_norm", nn.GroupNorm(2, 6), (2, 6, 3))
layer("batch_norm", nn.BatchNorm2d(3), (2, 3, 2, 2))
layer("attention", nn.MultiheadAttention(6, 2, batch_first=True), (2, 4, 6),
      call=lambda m, x: m(x, x, x, need_weights=False)[0])
causal = nn.Transformer.generate_square_subsequent_mask(4)
layer("attention_causal", nn.MultiheadAttention(6, 2, batch_first=True), (2, 4, 6),
      call=lambda m, x: m(x, x, x, attn_mask=causal, need_weights=False)[0])
layer("attention_cross", nn.MultiheadAttention(6, 2, batch_first=True), (2, 4, 6), (2, 3, 6),
      call=lambda m, x, c: m(x, c, c, need_weights=False)[0])
block = nn.TransformerEncoderLayer(6, 2, 24, 0.0, nn.GELU(approximate="tanh"), batch_first=True, norm_first=True)
layer("transformer", block, (2, 4, 6), call=lambda m, x: m(x, src_mask=causal),
      order=["norm1.weight", "norm1.bias", "self_attn.in_proj_weight", "self_attn.in_proj_bias",
             "self_attn.out_proj.weight", "self_attn.out_proj.bias", "norm2.weight", "norm2.bias",
             "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"])


def loss(name, f, *shapes):
    xs = inputs(*shapes)
    cases[name] = case(f(*[3 * x for x in xs]).reshape(()), xs)


labels = torch.tensor([2, 0, 1, 3])
ignored = torch.tensor([2, -1, 1, -1])
signs = torch.tensor([1.0, -1.0, -1.0, 1.0])
weights = torch.tensor([0.5, 2.0, 1.0, 0.25])
S = (4, 4)
loss("mse", F.mse_loss, S, S)
loss("mae", F.l1_loss, S, S)
loss("huber", lambda a, b: F.huber_loss(a, b, delta=0.7), S, S)
loss("smooth_l1", lambda a, b: F.smooth_l1_loss(a, b, beta=0.7), S, S)
loss("bce", lambda a, b: F.binary_cross_entropy_with_logits(a, torch.sigmoid(b)), S, S)
loss("cross_entropy", lambda a: F.cross_entropy(a, labels), S)
loss("cross_entropy_ignore", lambda a: F.cross_entropy(a, ignored, ignore_index=-1), S)
loss("cross_entropy_smooth", lambda a: F.cross_entropy(a, labels, label_smoothing=0.1), S)
loss("cross_entropy_weights", lambda a: F.cross_entropy(a, labels, weight=weights), S)
loss("cross_entropy_all",
     lambda a: F.cross_entropy(a, ignored, weight=weights, label_smoothing=0.2, ignore_index=-1), S)
loss("soft_cross_entropy", lambda a, b: F.cross_entropy(a, F.softmax(b, 1)), S, S)
loss("nll", lambda a: F.nll_loss(F.log_softmax(a, 1), labels), S)
loss("kl_divergence",
     lambda a, b: F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="batchmean"), S, S)
loss("gaussian_kl", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).sum(1).mean(), S, S)
loss("hinge", lambda a: torch.relu(1 - signs * a).mean(), (4,))
loss("cosine_embedding", lambda a, b: F.cosine_embedding_loss(a, b, signs, margin=0.2), S, S)
loss("triplet", lambda a, b, c: F.triplet_margin_loss(a, b, c, margin=1.5), S, S, S)



# Optimizers: five parameters 0.5 - 0.25 i, and in step t (from 1) the gradients
# sin(0.7 (5 t + i)) 4 10^(i - 2), the last one 0.
def trajectory(name, make, steps=12):
    p = nn.Parameter(0.5 - 0.25 * torch.arange(5, dtype=D))
    optimizer = make([p])
    scale = 4 * 10.0 ** (torch.arange(5, dtype=D) - 2) * torch.tensor([1.0, 1, 1, 1, 0])
    path = []
    for t in range(1, steps + 1):
        p.grad = torch.sin(0.7 * (5 * t + torch.arange(5, dtype=D))) * scale
        optimizer.step()
        path.append(p.tolist())
    cases["optim_" + name] = {"y": sum(path, [])}


O = torch.optim
trajectory("sgd", lambda p: O.SGD(p, 0.01, momentum=0.9, nesterov=True, weight_decay=0.1))
trajectory("adam", lambda p: O.Adam(p, 0.01, weight_decay=0.1))
trajectory("amsgrad", lambda p: O.Adam(p, 0.01, betas=(0.9, 0.5), amsgrad=True))
trajectory("adamw", lambda p: O.AdamW(p, 0.01, weight_decay=0.1))
trajectory("adagrad", lambda p: O.Adagrad(p, 0.05, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5))
trajectory("adadelta", lambda p: O.Adadelta(p, 1.0, weight_decay=0.1))
trajectory("rmsprop", lambda p: O.RMSprop(p, 0.01, alpha=0.9, momentum=0.5, weight_decay=0.1))
trajectory("rmsprop_centered", lambda p: O.RMSprop(p, 0.01, alpha=0.9, centered=True))
trajectory("adamax", lambda p: O.Adamax(p, 0.01, weight_decay=0.1))
trajectory("nadam", lambda p: O.NAdam(p, 0.01, weight_decay=0.1))

print("{")
print(",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in cases.items()))
print("}")
