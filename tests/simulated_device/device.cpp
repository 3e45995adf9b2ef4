// Two devices on the host's memory, sim:0 and sim:1: their operations.
//
// Each runs on the host by the CPU's kernel. Around it stands what a GPU demands and CPU tensors do not: one device per
// operation, generators of that device, and an error where CUDA has no deterministic kernel. Launches, copies and waits
// are told to whoever listens.
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include "hardware.h"

namespace {
// What is not launched as one kernel, what the host waits for, and what CUDA refuses.
Names READ = {"aten::equal", "aten::is_nonzero", "aten::masked_select", "aten::nonzero", "aten::_unique2",
              "aten::unique_consecutive", "aten::unique_dim", "aten::bincount"};
Names RANDOM_ORDER = {  // torch.use_deterministic_algorithms lists them: an error on CUDA
    "aten::_adaptive_avg_pool2d_backward", "aten::_adaptive_avg_pool3d_backward", "aten::adaptive_max_pool2d_backward",
    "aten::avg_pool3d_backward", "aten::fractional_max_pool2d_backward", "aten::fractional_max_pool3d_backward",
    "aten::grid_sampler_2d_backward", "aten::grid_sampler_3d_backward", "aten::histc", "aten::max_unpool2d",
    "aten::max_unpool3d", "aten::median.dim_values", "aten::nanmedian.dim_values", "aten::nll_loss2d_forward",
    "aten::put_", "aten::reflection_pad1d_backward", "aten::reflection_pad2d_backward",
    "aten::reflection_pad3d_backward",
    "aten::upsample_bicubic2d_backward", "aten::upsample_bilinear2d_backward", "aten::upsample_linear1d_backward",
    "aten::upsample_trilinear3d_backward"};
Names PRODUCTS = {"aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm", "aten::bmm",
                  "aten::baddbmm"};
std::atomic<bool> tf32_convolution = false, tf32_product = false;
Tensor rounded(const Tensor& t) {  // to ten bits after the point, as TF32 does
  if (!t.defined() || t.scalar_type() != at::kFloat) return t;
  return t.clone().view(at::kInt).add_(0x1000).bitwise_and_(~0x1FFF).view(at::kFloat);
}

template <class F> void each_tensor(c10::IValue& value, F change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> changed;
    for (const Tensor& t : value.toTensorVector()) changed.push_back(change(t));
    value = changed;
  } else if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> changed;
    for (const std::optional<Tensor>& t : value.toOptionalTensorList())
      changed.push_back(t && t->defined() ? std::optional<Tensor>(change(*t)) : t);
    value = changed;
  }
}

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  std::string name = schema.operator_name().name;
  const std::string overload = schema.operator_name().overload_name;
  const size_t inputs = schema.arguments().size(), outputs = schema.returns().size(), first = stack->size() - inputs;
  const bool own = name.ends_with("_overrideable");  // torch's name for a device's own convolution
  if (own) name = name.substr(0, name.size() - std::string("_overrideable").size());
  if (RANDOM_ORDER.count(name) || RANDOM_ORDER.count(name + "." + overload))
    at::globalContext().alertNotDeterministic(name.substr(6) + " on sim");

  std::optional<Device> where;
  auto refuse = [&](Device other) {
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", *where,
                " and ", other, "! (", name, ")");
  };
  for (size_t i = 0; i < inputs; i++)
    each_tensor((*stack)[first + i], [&](const Tensor& t) {
      if (simulated(t) && where && *where != t.device()) refuse(t.device());
      if (simulated(t)) where = t.device();
      return t;
    });
  const bool given = where.has_value();
  std::string waits = READ.count(name) ? name : "";
  for (size_t i = 0; i < inputs; i++) {
    auto& value = (*stack)[first + i];
    const auto& argument = schema.arguments()[i].name();
    if (value.isDevice() && value.toDevice().type() == SIM) {
      if (!where) where = at_index(value.toDevice().index());
      value = Device(at::kCPU);
    }
    const bool index = argument == "indices", list = value.isTensorList();
    each_tensor(value, [&](const Tensor& t) {
      if (given && !index && t.defined() && t.is_cpu() && (t.dim() || list)) refuse(t.device());
      if (index && name == "aten::_index_put_impl_" && t.scalar_type() == at::kBool) waits = name;
      return t;
    });
    if (name == "aten::repeat_interleave" && argument == "output_size" && value.isNone()) waits = name;
  }
  if (!where) where = at_index(-1);
  tell("launch", name);
  if (!waits.empty()) tell("wait", waits);

  c10::DeviceGuard guard(*where);
  c10::impl::ExcludeDispatchKeyGuard no_autocast(DispatchKey::AutocastCPU);
  at::AutoDispatchBelowADInplaceOrView no_graph;
  const std::vector<c10::IValue> before(stack->begin() + first, stack->end());
  const bool round = PRODUCTS.count(name) && (own ? tf32_convolution : tf32_product);
  for (size_t i = 0; i < inputs; i++) {
    auto& value = (*stack)[first + i];
    const auto& argument = schema.arguments()[i];
    const bool summand = argument.name() == "bias" || argument.is_out() || (i == 0 && name.find("add") != name.npos);
    each_tensor(value, [&](const Tensor& t) { return round && !summand ? rounded(host(t)) : host(t); });
    if (value.isGenerator()) {
      auto given = value.toGenerator();
      TORCH_CHECK(given.device() == *where, "Expected a '", *where, "' generator but found '", given.device(), "'");
      value = inner(given);
    } else if (schema.arguments()[i].name() == "generator") {
      value = inner(generator(where->index()));
    }
  }
  const std::vector<c10::IValue> after(stack->begin() + first, stack->end());
  if (own) {
    if (name == "aten::convolution_backward") {  // it wants to know the bias's size as well
      const auto weight = (*stack)[first + 2].toTensor();
      const bool transposed = (*stack)[first + 6].toBool();
      const auto size = transposed ? weight.size(1) * (*stack)[first + 8].toInt() : weight.size(0);
      stack->insert(stack->begin() + first + 3, c10::IValue(std::vector<int64_t>{size}));
    }
    c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "").callBoxed(stack);
  } else {
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  }
  for (size_t i = 0; i < inputs; i++) {  // out=: the kernel sizes it
    if (!schema.arguments()[i].is_out() || !before[i].isTensor()) continue;
    const auto asked = before[i].toTensor(), made = after[i].toTensor();
    if (asked.sizes() != made.sizes()) host(asked.resize_(made.sizes())).copy_(made);
  }
  for (size_t k = 0; k < outputs; k++) {
    auto& value = (*stack)[stack->size() - outputs + k];
    const auto* alias = schema.returns()[k].alias_info();
    each_tensor(value, [&](const Tensor& t) { return device(t, *where); });
    for (size_t i = 0; alias && alias->isWrite() && i < inputs; i++)
      if (const auto* same = schema.arguments()[i].alias_info(); same && *same == *alias) value = before[i];
  }
}

using Sizes = c10::SymIntArrayRef;
at::IntArrayRef ints(Sizes sizes) { return C10_AS_INTARRAYREF_SLOW(sizes); }

Tensor empty(Sizes size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<Device> where, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(where ? at_index(where->index()) : at_index(-1));
  return at::detail::empty_generic(ints(size), &memory, DispatchKeySet(DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}
Tensor empty_strided(Sizes size, Sizes stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<Device> where, std::optional<bool>) {
  c10::DeviceGuard guard(where ? at_index(where->index()) : at_index(-1));
  return at::detail::empty_strided_generic(ints(size), ints(stride), &memory,
                                           DispatchKeySet(DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}
Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  const Guard guard;
  if (simulated(from) && simulated(to)) {
    tell("launch", "copy");
  } else if (simulated(to)) {
    tell("copy", "to device");
    if (!non_blocking || !hooks.isPinnedPtr(from.storage().data())) tell("wait", "copy to device");
  } else {
    tell("copy", "to host");
    auto stream = guard.getStream(from.device());
    if (non_blocking && hooks.isPinnedPtr(to.storage().data())) {
      to.is_floating_point() ? to.fill_(NAN) : to.fill_(77);
      std::lock_guard<std::mutex> held(lock);
      under_way.push_back({stream, to, host(from)});
      return to;
    }
    tell("wait", "copy to host");
    arrive(stream);
  }
  host(to).copy_(host(from));
  return to;
}
Tensor copy_and_resize(const Tensor& from, const Tensor& to) {
  return copy_from(from, to.resize_(from.sizes()), false);
}
void foreach_copy(at::TensorList to, at::TensorList from, bool non_blocking) {  // one kernel where all have one dtype
  bool together = true;
  for (size_t i = 0; i < to.size(); i++)
    together = together && to[i].device() == to[0].device() && from[i].device() == to[0].device() &&
               to[i].scalar_type() == to[0].scalar_type() && from[i].scalar_type() == to[0].scalar_type();
  if (together) tell("launch", "aten::_foreach_copy_");
  for (size_t i = 0; i < to.size(); i++)
    together ? host(to[i]).copy_(host(from[i])) : to[i].copy_(from[i], non_blocking);
}
std::vector<Tensor> foreach_norm(at::TensorList of, const at::Scalar& order, std::optional<at::ScalarType> dtype) {
  bool together = true;  // then it takes two kernels
  for (const auto& t : of)
    together = together && t.device() == of[0].device() && t.scalar_type() == of[0].scalar_type();
  if (together) tell("launch", "aten::_foreach_norm"), tell("launch", "aten::_foreach_norm");
  std::vector<Tensor> norms;
  for (const auto& t : of) {
    if (!together) tell("launch", "aten::linalg_vector_norm");
    norms.push_back(at::empty({}, t.options().dtype(dtype)));
    host(norms.back()).copy_(at::linalg_vector_norm(host(t), order, at::OptionalIntArrayRef(), false, dtype));
  }
  return norms;
}
at::Scalar item(const Tensor& t) {
  tell("wait", "item");
  arrive(Guard().getStream(t.device()));
  return host(t).item();
}
Tensor as_strided(const Tensor& t, Sizes size, Sizes stride, std::optional<c10::SymInt> offset) {
  auto start = offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt;
  return at::native::as_strided_tensorimpl(t, ints(size), ints(stride), start);
}
Tensor view(const Tensor& t, Sizes size) { return at::native::view(t, ints(size)); }
Tensor reshape_alias(const Tensor& t, Sizes size, Sizes stride) {
  return at::native::_reshape_alias(t, ints(size), ints(stride));
}
const Tensor& resize(const Tensor& t, Sizes size, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(t.device());
  return at::native::resize_(t, ints(size), format);
}
Tensor& set_storage(Tensor& t, Storage storage, c10::SymInt offset, Sizes size, Sizes stride) {
  t.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  t.unsafeGetTensorImpl()->set_sizes_and_strides(ints(size), ints(stride),
                                                 offset.expect_int());
  return t;
}
Tensor& set_whole_storage(Tensor& t, Storage storage) {
  int64_t size = storage.nbytes() / t.element_size();
  return set_storage(t, std::move(storage), 0, Sizes({size}), Sizes({1}));
}
int64_t plain_attention(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool,
                        std::optional<double>, bool) {
  return 0;
}
}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_and_resize);
  m.impl("_foreach_copy_", foreach_copy);
  m.impl("_foreach_norm.Scalar", foreach_norm);
  m.impl("_local_scalar_dense", item);
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&run>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&run>());
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("record_stream", [](Tensor&, Stream) {});
  m.impl("_fused_sdp_choice", plain_attention);
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {  // the lists are those of CUDA
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FLOAT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define OWN(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(FLOAT)
  AT_FORALL_FP32_SET_OPT_DTYPE(OWN)
  AT_FORALL_PROMOTE(WIDEST)
}

extern "C" {  // for device.py
void sim_load() { at::RegisterPrivateUse1HooksInterface(&hooks); }
void sim_listen(void (*hear)(const char*, const char*)) { listener = hear; }
int sim_current() { return current; }
void sim_set_current(int index) { current = static_cast<DeviceIndex>(index); }
int64_t sim_used(int index) { return used[index]; }
int64_t sim_peak(int index) { return peak[index]; }
void sim_reset_peak(int index) { peak[index] = used[index]; }
void sim_limit(int64_t bytes) { limit = bytes; }
void sim_tf32(bool convolution, bool product) { tf32_convolution = convolution, tf32_product = product; }
void sim_seed(int index, uint64_t seed) { at::Generator(inner(generator(index))).set_current_seed(seed); }
void sim_random_state(int index, void* bytes, bool put) {
  auto* of = inner(generator(index)).unsafeGetGeneratorImpl();
  auto state = Tensor(of->get_state());
  put ? std::memcpy(state.data_ptr(), bytes, state.nbytes()) : std::memcpy(bytes, state.data_ptr(), state.nbytes());
  if (put) of->set_state(*state.unsafeGetTensorImpl());
}
}
