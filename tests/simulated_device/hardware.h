// The hardware of two devices, sim:0 and sim:1: memory on the host with a limit, streams and events, page-locked memory
// into which copies arrive late, and random numbers. Torch's spare backend, "PrivateUse1", is told of it.
#pragma once
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <mutex>
#include <set>

using at::Tensor;
using c10::Device, c10::DeviceIndex, c10::DispatchKey, c10::DispatchKeySet, c10::Storage, c10::Stream;
using Names = const std::set<std::string>;

namespace {
constexpr auto SIM = c10::DeviceType::PrivateUse1;
constexpr DeviceIndex DEVICES = 2;
thread_local DeviceIndex current = 0;
thread_local c10::StreamId streams[DEVICES] = {};
std::mutex lock;

Device at_index(DeviceIndex index) { return Device(SIM, index < 0 ? current : index); }
bool simulated(const Tensor& t) { return t.defined() && t.device().type() == SIM; }

// What a listener in Python hears of. It may take Python's lock, so none of ours is held.
std::atomic<void (*)(const char* kind, const char* name)> listener = nullptr;
void tell(const char* kind, const std::string& name) {
  if (auto hear = listener.load()) hear(kind, name.c_str());
}

// Memory: a tensor of one device is a tensor of another on the same bytes, which count for the device they are seen on.
int64_t used[DEVICES] = {}, peak[DEVICES] = {}, limit = -1;
void claim(DeviceIndex device, int64_t bytes) {
  std::lock_guard<std::mutex> held(lock);
  TORCH_CHECK_WITH(OutOfMemoryError, bytes <= 0 || limit < 0 || used[device] + bytes <= limit,
                   "SIM out of memory. Tried to allocate ", bytes, " bytes beside ", used[device]);
  used[device] += bytes;
  peak[device] = std::max(peak[device], used[device]);
}
struct Seen {
  Storage bytes;
  Device from;
  int64_t size;
  static void drop(void* context) {
    std::unique_ptr<Seen> seen(static_cast<Seen*>(context));
    if (seen->from.type() == SIM) claim(seen->from.index(), -seen->size);
  }
};
c10::DataPtr see(const Storage& bytes, Device from) {
  auto size = static_cast<int64_t>(bytes.nbytes());
  if (from.type() == SIM) claim(from.index(), size);
  return {bytes.mutable_data(), new Seen{bytes, from, size}, &Seen::drop, from};
}
struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    auto* host = c10::GetAllocator(c10::DeviceType::CPU);
    return see(Storage(Storage::use_byte_size_t(), size, host->allocate(size), host, false), at_index(-1));
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
} memory;
REGISTER_ALLOCATOR(SIM, &memory);

Tensor on(Device device, const Tensor& t) {
  auto of = t.storage();
  c10::Allocator* allocator = device.is_cpu() ? c10::GetAllocator(c10::DeviceType::CPU) : &memory;
  Storage storage(Storage::use_byte_size_t(), of.nbytes(), see(of, device), allocator, true);
  DispatchKeySet keys(device.is_cpu() ? DispatchKey::CPU : DispatchKey::PrivateUse1);
  auto seen = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, t.dtype());
  seen.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  if (t.is_conj()) seen._set_conj(true);
  if (t.is_neg()) seen._set_neg(true);
  return seen;
}
Tensor host(const Tensor& t) { return simulated(t) ? on(at::kCPU, t) : t; }
Tensor device(const Tensor& t, Device device) { return t.defined() && t.is_cpu() ? on(device, t) : t; }

// Page-locked memory, and the copies into it: each arrives when somebody waits for its stream, never before.
std::set<const void*> locked;
struct Locked final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* bytes = std::aligned_alloc(64, (size / 64 + 1) * 64);
    std::lock_guard<std::mutex> held(lock);
    locked.insert(bytes);
    return {bytes, bytes, raw_deleter(), at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* bytes) {
      std::lock_guard<std::mutex> held(lock);
      locked.erase(bytes);
      std::free(bytes);
    };
  }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
} locked_memory;

struct Copy { Stream stream; Tensor to, from; };
std::vector<Copy> under_way;
void arrive(const Stream& stream, size_t first = SIZE_MAX) {  // the stream's copies among the first ones
  std::vector<Copy> done;
  {
    std::lock_guard<std::mutex> held(lock);
    for (size_t i = 0; i < std::min(first, under_way.size()); i++)
      if (under_way[i].to.defined() && under_way[i].stream == stream)
        done.push_back({stream, std::exchange(under_way[i].to, Tensor()), std::exchange(under_way[i].from, Tensor())});
  }
  for (auto& copy : done) copy.to.copy_(copy.from);
}
struct Event { Stream stream; size_t copies; };

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr auto static_type = SIM;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return SIM; }
  Device getDevice() const override { return at_index(-1); }
  void setDevice(Device d) const override { current = at_index(d.index()).index(); }
  void uncheckedSetDevice(Device d) const noexcept override { setDevice(d); }
  Device exchangeDevice(Device d) const override { auto old = getDevice(); setDevice(d); return old; }
  DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  Stream getStream(Device d) const override {
    auto whole = at_index(d.index());
    return Stream(Stream::UNSAFE, whole, streams[whole.index()]);
  }
  Stream getDefaultStream(Device d) const override { return Stream(Stream::DEFAULT, at_index(d.index())); }
  Stream getNewStream(Device d, int) const override {
    static std::atomic<c10::StreamId> next = 1;
    return Stream(Stream::UNSAFE, at_index(d.index()), next++);
  }
  Stream getStreamFromGlobalPool(Device d, bool) const override { return getNewStream(d, 0); }
  Stream exchangeStream(Stream s) const override {
    auto old = getStream(s.device());
    streams[s.device_index()] = s.id();
    return old;
  }
  void record(void** event, const Stream& s, const DeviceIndex, const c10::EventFlag) const override {
    destroyEvent(std::exchange(*event, new Event{s, under_way.size()}), -1);
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void block(void*, const Stream&) const override {}  // operations run at once: all before it have ended
  void synchronizeEvent(void* event) const override {
    tell("wait", "event");
    if (auto* e = static_cast<Event*>(event)) arrive(e->stream, e->copies);
  }
  void synchronizeStream(const Stream& s) const override { tell("wait", "stream"); arrive(s); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Random final : c10::GeneratorImpl {
  at::Generator inner = at::detail::createCPUGenerator();
  explicit Random(DeviceIndex d) : GeneratorImpl(at_index(d), DispatchKeySet(DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "no offset"); }
  uint64_t get_offset() const override { TORCH_CHECK(false, "no offset"); }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new Random(device_.index());
    copy->inner = inner.clone();
    return copy;
  }
};
const at::Generator& generator(DeviceIndex index) {
  static const at::Generator all[DEVICES] = {at::make_generator<Random>(0), at::make_generator<Random>(1)};
  return all[at_index(index).index()];
}
const at::Generator& inner(const at::Generator& g) { return static_cast<Random*>(g.unsafeGetGeneratorImpl())->inner; }

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  const at::Generator& getDefaultGenerator(DeviceIndex i) const override { return generator(i); }
  at::Generator getNewGenerator(DeviceIndex i) const override { return at::make_generator<Random>(i); }
  Device getDeviceFromPtr(void*) const override { return at_index(-1); }
  bool isPinnedPtr(const void* bytes) const override {
    std::lock_guard<std::mutex> held(lock);
    return locked.count(bytes);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &locked_memory; }
  DeviceIndex deviceCount() const override { return DEVICES; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex i) const override { current = i; }
  DeviceIndex exchangeDevice(DeviceIndex i) const override { return std::exchange(current, at_index(i).index()); }
  DeviceIndex maybeExchangeDevice(DeviceIndex i) const override { return exchangeDevice(i); }
  void resizePrivateUse1Bytes(const Storage& storage, size_t size) const override {
    auto fresh = memory.allocate(size);
    std::memcpy(fresh.get(), storage.data(), std::min(size, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(size);
  }
} hooks;
}  // namespace
