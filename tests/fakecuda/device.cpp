// A device of type CUDA that lives in main memory, for a CPU build of torch: every tensor, storage, autograd node,
// generator and dispatcher key is truly a CUDA one, the arithmetic is done by the CPU kernels on the same bytes, and
// what a GPU would refuse (tensors of two devices in one operation, a CPU generator) is refused.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/TensorShape.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace {
using namespace at;
using c10::DeviceIndex;
using torch::jit::Stack;

DeviceIndex count() {
  static const DeviceIndex n = [] {
    const char* said = std::getenv("FAKE_CUDA_DEVICES");
    return static_cast<DeviceIndex>(said ? std::atoi(said) : 1);
  }();
  return n;
}
thread_local DeviceIndex current = 0;
std::atomic<int64_t> held{0}, peak{0}, copies_down{0}, syncs{0};
void grow(int64_t bytes) {
  int64_t now = held += bytes, seen = peak.load();
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
}

// ---- memory: bytes of the CPU under the name of a CUDA device -------------------------------------------------
struct Lent {
  c10::Storage storage;  // on the CPU; owns the bytes
};
void give_back(void* lent) {
  auto* l = static_cast<Lent*>(lent);
  held -= static_cast<int64_t>(l->storage.nbytes());
  delete l;
}
c10::DataPtr as_cuda(c10::Storage cpu, DeviceIndex index) {
  grow(static_cast<int64_t>(cpu.nbytes()));
  void* data = cpu.mutable_data();
  return {data, new Lent{std::move(cpu)}, &give_back, Device(kCUDA, index)};
}
struct FakeAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    c10::Storage cpu(c10::Storage::use_byte_size_t(), n, c10::GetCPUAllocator(), false);
    return as_cuda(std::move(cpu), current);
  }
  void copy_data(void* to, const void* from, size_t n) const override {
    default_copy_data(to, from, n);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
};
FakeAllocator allocator;

// ---- generator ------------------------------------------------------------------------------------------------
struct FakeGenerator final : c10::GeneratorImpl {
  c10::intrusive_ptr<CPUGeneratorImpl> inner;
  explicit FakeGenerator(DeviceIndex i, c10::intrusive_ptr<CPUGeneratorImpl> g = {})
      : GeneratorImpl(Device(kCUDA, i), DispatchKeySet(DispatchKey::CUDA)),
        inner(g ? std::move(g) : c10::make_intrusive<CPUGeneratorImpl>()) {}
  void set_current_seed(uint64_t s) override { inner->set_current_seed(s); }
  void set_offset(uint64_t o) override { inner->set_offset(o); }
  uint64_t get_offset() const override { return inner->get_offset(); }
  uint64_t current_seed() const override { return inner->current_seed(); }
  uint64_t seed() override { return inner->seed(); }
  void set_state(const c10::TensorImpl& s) override { inner->set_state(s); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner->get_state(); }
  FakeGenerator* clone_impl() const override {
    auto* made = new FakeGenerator(device().index());
    made->inner->set_state(*inner->get_state());
    return made;
  }
};
const Generator& default_generator(DeviceIndex i) {
  static std::vector<Generator> all = [] {
    std::vector<Generator> made;
    for (DeviceIndex at = 0; at < count(); ++at) made.push_back(make_generator<FakeGenerator>(at));
    return made;
  }();
  return all.at(i < 0 ? current : i);
}

// ---- what C++ asks a device: current one, streams, hooks --------------------------------------------------------
struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kCUDA; }
  Device exchangeDevice(Device d) const override {
    auto old = current;
    current = d.index() < 0 ? current : d.index();
    return Device(kCUDA, old);
  }
  Device getDevice() const override { return Device(kCUDA, current); }
  void setDevice(Device d) const override { if (d.index() >= 0) current = d.index(); }
  void uncheckedSetDevice(Device d) const noexcept override { if (d.index() >= 0) current = d.index(); }
  c10::Stream getStream(Device d) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, Device(kCUDA, d.index() < 0 ? current : d.index())); }
  c10::Stream getNewStream(Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return getStream(s.device()); }
  DeviceIndex deviceCount() const noexcept override { return count(); }
  void record(void**, const c10::Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuard);

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return count() > 0; }
  bool hasCUDA() const override { return count() > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  const Generator& getDefaultGenerator(DeviceIndex i) const override { return default_generator(i); }
  Generator getNewGenerator(DeviceIndex i) const override { return make_generator<FakeGenerator>(i < 0 ? current : i); }
  Device getDeviceFromPtr(void*) const override { return Device(kCUDA, current); }
  DeviceIndex deviceCount() const override { return count(); }
  int getNumGPUs() const override { return count(); }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex i) const override { current = i; }
  DeviceIndex exchangeDevice(DeviceIndex i) const override { auto old = current; current = i; return old; }
  DeviceIndex maybeExchangeDevice(DeviceIndex i) const override { return i < 0 ? current : exchangeDevice(i); }
  Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  void deviceSynchronize(DeviceIndex) const override {}
};

// ---- every operation --------------------------------------------------------------------------------------------
bool starts(const std::string& s, const char* with) { return s.rfind(with, 0) == 0; }

/// Tensors that one operation reads or writes, under their CPU names while it runs.
struct Names {
  std::unordered_map<c10::StorageImpl*, c10::Storage> down;                       // CUDA -> CPU
  std::unordered_map<c10::StorageImpl*, Tensor> up;                               // CPU -> a CUDA tensor of that storage
  std::unordered_map<c10::TensorImpl*, Tensor> same;                              // CPU tensor -> its original
  std::vector<std::pair<Tensor, Tensor>> all;                                     // original, CPU
  std::unordered_map<c10::StorageImpl*, c10::Storage> fresh;

  Tensor cpu(const Tensor& t) {
    if (!t.defined() || !t.is_cuda()) return t;
    auto* own = t.storage().unsafeGetStorageImpl();
    auto found = down.find(own);
    if (found == down.end()) {
      auto* keep = new c10::Storage(t.storage());
      c10::DataPtr data(t.storage().mutable_data(), keep, [](void* k) { delete static_cast<c10::Storage*>(k); }, kCPU);
      found = down.emplace(own, c10::Storage(c10::Storage::use_byte_size_t(), t.storage().nbytes(), std::move(data), c10::GetCPUAllocator(), true)).first;
      up.emplace(found->second.unsafeGetStorageImpl(), t);
    }
    Tensor made = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(found->second), DispatchKeySet(DispatchKey::CPU), t.dtype());
    made.unsafeGetTensorImpl()->set_storage_offset(t.storage_offset());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides());
    if (t.unsafeGetTensorImpl()->is_wrapped_number()) made.unsafeGetTensorImpl()->set_wrapped_number(true);
    if (t.is_conj()) made._set_conj(true);
    if (t.is_neg()) made._set_neg(true);
    same.emplace(made.unsafeGetTensorImpl(), t);
    all.emplace_back(t, made);
    return made;
  }
  Tensor cuda(const Tensor& t, DeviceIndex index) {
    if (!t.defined() || !t.is_cpu()) return t;
    if (auto at = same.find(t.unsafeGetTensorImpl()); at != same.end()) return at->second;
    auto* own = t.storage().unsafeGetStorageImpl();
    if (auto at = up.find(own); at != up.end())  // a view of an argument
      if (t.dtype() == at->second.dtype())
        return at::native::as_strided_tensorimpl(at->second, t.sizes(), t.strides(), t.storage_offset());
    c10::Storage storage;
    if (auto at = up.find(own); at != up.end()) storage = at->second.storage();
    else if (auto at = fresh.find(own); at != fresh.end()) storage = at->second;
    else {
      storage = c10::Storage(c10::Storage::use_byte_size_t(), t.storage().nbytes(), as_cuda(t.storage(), index), &allocator, true);
      fresh.emplace(own, storage);
    }
    Tensor made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), DispatchKeySet(DispatchKey::CUDA), t.dtype());
    made.unsafeGetTensorImpl()->set_storage_offset(t.storage_offset());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides());
    return made;
  }
  /// What an operation resized is resized on the device too.
  void settle() {
    for (auto& [t, c] : all) {
      if (c.storage().mutable_data() != t.storage().mutable_data() || c.storage().nbytes() > t.storage().nbytes()) {
        auto* impl = t.storage().unsafeGetStorageImpl();
        impl->set_data_ptr_noswap(as_cuda(c.storage(), t.device().index()));
        impl->set_nbytes(c.storage().nbytes());
      }
      if (t.sizes() != c.sizes() || t.strides() != c.strides() || t.storage_offset() != c.storage_offset()) {
        t.unsafeGetTensorImpl()->set_storage_offset(c.storage_offset());
        t.unsafeGetTensorImpl()->set_sizes_and_strides(c.sizes(), c.strides());
      }
    }
  }
};

void check(const c10::OperatorHandle& op, const std::vector<std::pair<Tensor, std::string>>& tensors) {
  const auto& name = op.operator_name().name;
  if (starts(name, "aten::copy_") || starts(name, "aten::_copy_from") || starts(name, "aten::set_") ||
      starts(name, "aten::record_stream") || starts(name, "aten::_foreach_copy_"))
    return;
  const bool pointwise = op.hasTag(at::Tag::pointwise) || starts(name, "aten::fill_") || starts(name, "aten::masked_fill") ||
      starts(name, "aten::index_fill") || starts(name, "aten::where") || starts(name, "aten::pow");
  const bool indexing = name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_" ||
      name == "aten::index_put" || name == "aten::_unsafe_index" || name == "aten::_unsafe_index_put";
  std::optional<std::pair<Device, std::string>> first;
  for (auto& [t, arg] : tensors) {
    if (t.device().type() != kCUDA) continue;
    if (first && first->first != t.device())
      TORCH_CHECK(false, "Expected all tensors to be on the same device, but got ", arg, " is on ", t.device(),
                  ", different from ", first->second, " on ", first->first, " (pretended CUDA, checking ", name, ")");
    if (!first) first.emplace(t.device(), arg);
  }
  if (!first) return;
  for (auto& [t, arg] : tensors) {
    if (t.is_cuda()) continue;
    if (pointwise && t.dim() == 0 && !(arg == "self" && name.back() == '_')) continue;
    if (indexing && (arg == "indices" || (arg == "values" && t.dim() == 0))) continue;
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but got ", arg, " is on ", t.device(),
                ", different from ", first->second, " on ", first->first, " (pretended CUDA, checking ", name, ")");
  }
}

void run(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const auto n = schema.arguments().size();
  const auto begin = stack->size() - n;
  std::vector<std::pair<Tensor, std::string>> tensors;
  std::optional<Device> asked;
  auto note = [&](const Tensor& t, const std::string& arg) {
    if (t.defined()) tensors.emplace_back(t, arg);
  };
  for (size_t i = 0; i < n; ++i) {
    const auto& v = (*stack)[begin + i];
    const auto& arg = schema.arguments()[i].name();
    if (v.isTensor()) note(v.toTensor(), arg);
    else if (v.isTensorList()) for (const auto& t : v.toTensorVector()) note(t, arg);
    else if (v.isOptionalTensorList()) { for (const auto& t : v.toOptionalTensorVector()) if (t) note(*t, arg); }
    else if (v.isDevice()) asked = v.toDevice();
  }
  check(op, tensors);
  DeviceIndex index = asked && asked->has_index() ? asked->index() : current;
  bool any = false;
  for (auto& [t, _] : tensors) if (t.is_cuda()) { index = t.device().index(); any = true; break; }
  const bool home = asked && asked->is_cpu();

  Names names;
  for (size_t i = 0; i < n; ++i) {
    auto& v = (*stack)[begin + i];
    if (v.isTensor()) v = names.cpu(v.toTensor());
    else if (v.isTensorList()) {
      c10::List<Tensor> made;
      for (const auto& t : v.toTensorVector()) made.push_back(names.cpu(t));
      v = made;
    } else if (v.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> made;
      for (const auto& t : v.toOptionalTensorVector()) made.push_back(t ? std::optional<Tensor>(names.cpu(*t)) : std::nullopt);
      v = made;
    } else if (v.isDevice()) v = Device(kCPU);
    else if (v.isGenerator()) {
      auto g = v.toGenerator();
      TORCH_CHECK(g.device().type() == kCUDA, "Expected a 'cuda' device type for generator but found '", g.device().type(), "'");
      v = Generator(static_cast<FakeGenerator*>(g.unsafeGetGeneratorImpl())->inner);
    }
  }
  if (op.operator_name().name == "aten::_local_scalar_dense") ++syncs;
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  names.settle();
  const auto results = schema.returns().size();
  for (size_t i = stack->size() - results; i < stack->size(); ++i) {
    auto& v = (*stack)[i];
    if (v.isTensor()) v = home ? v.toTensor() : names.cuda(v.toTensor(), index);
    else if (v.isTensorList()) {
      c10::List<Tensor> made;
      for (const auto& t : v.toTensorVector()) made.push_back(names.cuda(t, index));
      v = made;
    }
  }
  (void)any;
}

void copy_boxed(const c10::OperatorHandle& op, Stack* stack) {
  auto self = (*stack)[stack->size() - 3].toTensor();
  auto src = (*stack)[stack->size() - 2].toTensor();
  if (self.is_cpu() && src.is_cuda()) ++copies_down;
  Names names;
  (*stack)[stack->size() - 3] = names.cpu(self);
  (*stack)[stack->size() - 2] = names.cpu(src);
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  stack->back() = self;
}

Tensor empty(c10::IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device> device,
             std::optional<bool>, std::optional<MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &allocator, DispatchKeySet(DispatchKey::CUDA), dtype_or_default(dtype), format);
}
Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<ScalarType> dtype, std::optional<Layout>,
                     std::optional<Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &allocator, DispatchKeySet(DispatchKey::CUDA), dtype_or_default(dtype));
}
Tensor& set_storage(Tensor& self, Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  TORCH_CHECK(source.device() == self.device(), "set_: storage on ", source.device(), ", tensor on ", self.device());
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}
}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", TORCH_FN(static_cast<Tensor& (*)(Tensor&, Storage)>(&at::native::set_)));
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&copy_boxed>());
}

// torch has made its "no CUDA here" hooks by now and kept them: ours, which hold no data either, take their place.
static const bool hooked = [] {
  static_assert(sizeof(CUDAHooks) == sizeof(at::CUDAHooksInterface));
  new (const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks())) CUDAHooks({});
  c10::SetAllocator(c10::DeviceType::CUDA, &allocator, 0);
  return true;
}();
extern "C" {
int64_t fake_cuda_held() { return held; }
int64_t fake_cuda_peak() { return peak; }
void fake_cuda_reset_peak() { peak = held.load(); }
int64_t fake_cuda_syncs() { return syncs + copies_down; }
void fake_cuda_resize(void* storage, int64_t bytes) {
  auto* impl = static_cast<c10::StorageImpl*>(storage);
  c10::Storage cpu(c10::Storage::use_byte_size_t(), bytes, c10::GetCPUAllocator(), false);
  std::memcpy(cpu.mutable_data(), impl->data(), std::min<size_t>(bytes, impl->nbytes()));
  impl->set_data_ptr_noswap(as_cuda(std::move(cpu), impl->device().index()));
  impl->set_nbytes(bytes);
}
int fake_cuda_count() { return count(); }
int fake_cuda_current() { return current; }
void fake_cuda_set(int i) { current = static_cast<c10::DeviceIndex>(i); }
}
