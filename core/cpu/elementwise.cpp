#include <cstring>

#include "core/cpu/check.h"
#include "core/cpu/cpu_ops.h"
#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

struct ValueAndSlope {
  float value;
  float slope;
};

/// gelu_new: x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3). As (1 + tanh u) / 2 is
/// sigmoid(2u), one exponential is enough.
struct GeluNew {
  [[gnu::always_inline]] static ValueAndSlope at(float x) {
    constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 sqrt(2/pi)
    constexpr float kCubic = 0.044715f;
    const float square = x * x;
    const Sigmoid s = sigmoid(kTwiceRoot * x * (1.0f + kCubic * square));
    const float inner = kTwiceRoot * (1.0f + 3.0f * kCubic * square);
    return {x * s.value, s.value + x * s.value * s.complement * inner};
  }
};
struct Silu {
  [[gnu::always_inline]] static ValueAndSlope at(float x) {
    const Sigmoid s = sigmoid(x);
    return {x * s.value, s.value * (1.0f + x * s.complement)};
  }
};
struct Relu {
  [[gnu::always_inline]] static ValueAndSlope at(float x) {
    return {x > 0.0f ? x : 0.0f, x > 0.0f ? 1.0f : 0.0f};
  }
};

// The loops below work in place where the operation allows it, hence no __restrict; every iteration
// reads element i before it writes element i, which is all that "ivdep" promises.

template <typename F, typename T>
STRATA_MULTIVERSION void activation_loop(const T* x, T* y, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(y[i], F::at(load(x[i])).value);
}

template <typename F, typename T>
STRATA_MULTIVERSION void activation_backward_loop(const T* dy, const T* x, T* dx, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(dx[i], load(dy[i]) * F::at(load(x[i])).slope);
}

template <typename F, typename T>
STRATA_MULTIVERSION void gated_loop(const T* gate, const T* up, T* y, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(y[i], F::at(load(gate[i])).value * load(up[i]));
}

template <typename F, typename T>
STRATA_MULTIVERSION void gated_backward_loop(const T* dy, const T* gate, const T* up, T* dgate,
                                             T* dup, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const ValueAndSlope f = F::at(load(gate[i]));
    const float gradient = load(dy[i]);
    const float up_value = load(up[i]);
    store(dgate[i], gradient * up_value * f.slope);
    store(dup[i], gradient * f.value);
  }
}

template <typename T>
STRATA_MULTIVERSION void add_loop(const T* a, const T* b, T* y, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(y[i], load(a[i]) + load(b[i]));
}

template <typename From, typename To>
STRATA_MULTIVERSION void convert_loop(const From* x, float scale, To* y, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) store(y[i], load(x[i]) * scale);
}

/// Calls body(F{}) with the function that `f` names.
template <typename Body>
void visit_activation(Activation f, const Body& body) {
  switch (f) {
    case Activation::kGeluNew:
      return body(GeluNew{});
    case Activation::kSilu:
      return body(Silu{});
    case Activation::kRelu:
      return body(Relu{});
  }
}

}  // namespace

void CpuOps::activation(Activation f, ConstTensorView x, TensorView y, Stream& stream) {
  expect_compute("activation", "x", x);
  expect_tensor("activation", "y", y, x.dtype(), x.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      visit_activation(f, [&]<typename F>(F) {
        for_blocks(x.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
          activation_loop<F>(x.as<T>() + begin, y.as<T>() + begin, count);
        });
      });
    });
  });
}

void CpuOps::activation_backward(Activation f, ConstTensorView dy, ConstTensorView x, TensorView dx,
                                 Stream& stream) {
  expect_compute("activation_backward", "x", x);
  expect_tensor("activation_backward", "dy", dy, x.dtype(), x.shape());
  expect_tensor("activation_backward", "dx", dx, x.dtype(), x.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename T>(T) {
      visit_activation(f, [&]<typename F>(F) {
        for_blocks(x.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
          activation_backward_loop<F>(dy.as<T>() + begin, x.as<T>() + begin, dx.as<T>() + begin,
                                      count);
        });
      });
    });
  });
}

void CpuOps::gated_activation(Activation f, ConstTensorView gate, ConstTensorView up, TensorView y,
                              Stream& stream) {
  expect_compute("gated_activation", "gate", gate);
  expect_tensor("gated_activation", "up", up, gate.dtype(), gate.shape());
  expect_tensor("gated_activation", "y", y, gate.dtype(), gate.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(gate.dtype(), [&]<typename T>(T) {
      visit_activation(f, [&]<typename F>(F) {
        for_blocks(gate.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
          gated_loop<F>(gate.as<T>() + begin, up.as<T>() + begin, y.as<T>() + begin, count);
        });
      });
    });
  });
}

void CpuOps::gated_activation_backward(Activation f, ConstTensorView dy, ConstTensorView gate,
                                       ConstTensorView up, TensorView dgate, TensorView dup,
                                       Stream& stream) {
  expect_compute("gated_activation_backward", "gate", gate);
  expect_tensor("gated_activation_backward", "dy", dy, gate.dtype(), gate.shape());
  expect_tensor("gated_activation_backward", "up", up, gate.dtype(), gate.shape());
  expect_tensor("gated_activation_backward", "dgate", dgate, gate.dtype(), gate.shape());
  expect_tensor("gated_activation_backward", "dup", dup, gate.dtype(), gate.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(gate.dtype(), [&]<typename T>(T) {
      visit_activation(f, [&]<typename F>(F) {
        for_blocks(gate.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
          gated_backward_loop<F>(dy.as<T>() + begin, gate.as<T>() + begin, up.as<T>() + begin,
                                 dgate.as<T>() + begin, dup.as<T>() + begin, count);
        });
      });
    });
  });
}

void CpuOps::add(ConstTensorView a, ConstTensorView b, TensorView y, Stream& stream) {
  expect_compute("add", "a", a);
  expect_tensor("add", "b", b, a.dtype(), a.shape());
  expect_tensor("add", "y", y, a.dtype(), a.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(a.dtype(), [&]<typename T>(T) {
      for_blocks(a.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
        add_loop(a.as<T>() + begin, b.as<T>() + begin, y.as<T>() + begin, count);
      });
    });
  });
}

void CpuOps::convert(ConstTensorView x, float scale, TensorView y, Stream& stream) {
  expect_compute("convert", "x", x);
  expect_compute("convert", "y", y);
  expect_shape("convert", "y", y, x.shape());
  submit(stream, threads_, [=] {
    visit_compute_dtype(x.dtype(), [&]<typename From>(From) {
      visit_compute_dtype(y.dtype(), [&]<typename To>(To) {
        for_blocks(x.numel(), kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
          convert_loop(x.as<From>() + begin, scale, y.as<To>() + begin, count);
        });
      });
    });
  });
}

void CpuOps::fill_zero(TensorView y, Stream& stream) {
  submit(stream, threads_, [=] {
    constexpr std::int64_t kBlockBytes = 1 << 18;
    for_blocks(static_cast<std::int64_t>(y.bytes()), kBlockBytes,
               [&](std::int64_t begin, std::int64_t count) {
                 std::memset(static_cast<std::byte*>(y.data()) + begin, 0,
                             static_cast<std::size_t>(count));
               });
  });
}

}  // namespace strata::cpu
