// All forms of operator new and delete, the new handler, and bad_alloc.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

static int failures;
static void check(bool right, const char *what) {
    if (!right) std::printf("wrong: %s\n", what), failures++;
}
static volatile std::size_t huge = SIZE_MAX / 2 - 100;
static int handled;
static void handler() {
    if (++handled == 3) std::set_new_handler(nullptr);
}

struct alignas(128) Wide {
    char bytes[256];
};

template <typename F> static bool throws(F f) {
    try {
        f();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

int main(int count, char **) {
    if (count > 1) {
        ::operator delete[](::operator new(1));
        return 0;
    }
    std::align_val_t wide{128};
    check(throws([] { return ::operator new(huge); }), "new throws");
    check(throws([] { return ::operator new[](huge); }), "new[] throws");
    check(throws([=] { return ::operator new(huge, wide); }), "aligned new throws");
    check(throws([=] { return ::operator new[](huge, wide); }), "aligned new[] throws");
    check(!::operator new(huge, std::nothrow) && !::operator new[](huge, std::nothrow), "nothrow new");
    check(!::operator new(huge, wide, std::nothrow), "aligned nothrow new");
    check(!::operator new[](huge, wide, std::nothrow), "aligned nothrow new[]");
    std::set_new_handler(handler);
    check(throws([] { return ::operator new(huge); }) && handled == 3, "the new handler is called until it is null");

    ::operator delete(::operator new(10));
    ::operator delete[](::operator new[](10));
    ::operator delete(::operator new(10, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](10, std::nothrow), std::nothrow);
    ::operator delete(::operator new(10), std::size_t(10));
    ::operator delete[](::operator new[](0), std::size_t(0));
    void *aligned = ::operator new(1000, wide);
    check(reinterpret_cast<std::uintptr_t>(aligned) % 128 == 0, "aligned new");
    ::operator delete(aligned, wide);
    ::operator delete[](::operator new[](1000, wide), wide);
    ::operator delete(::operator new(1000, wide), std::size_t(1000), wide);
    ::operator delete[](::operator new[](1000, wide), std::size_t(1000), wide);
    ::operator delete(::operator new(1000, wide, std::nothrow), wide, std::nothrow);
    ::operator delete[](::operator new[](1000, wide, std::nothrow), wide, std::nothrow);
    delete static_cast<char *>(nullptr);

    std::vector<std::string> words;
    for (int i = 0; i < 10000; i++) words.push_back(std::string(i % 100, 'x'));
    auto shared = std::make_shared<Wide>();
    check(reinterpret_cast<std::uintptr_t>(shared.get()) % 128 == 0, "make_shared aligns");
    std::printf("%d wrong\n", failures);
    return failures != 0;
}
