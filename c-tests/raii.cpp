// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a C++ program makes of the interface: managers and locks that go out of scope.
#include <memory>
#include <mutex>
#include <system_error>

#include "segment.h"

namespace
{

struct closer {
	void operator()(lock_manager_t *manager) const
	{
		CHECK_INT(lock_manager_close(manager), 0);
	}
};
using manager_pointer = std::unique_ptr<lock_manager_t, closer>;

int succeeded(int code)
{
	if (code < 0)
		throw std::system_error(-code, std::generic_category(), lock_manager_last_error());
	return code;
}

// BasicLockable, so that std::lock_guard and std::scoped_lock work.
class shared_lock {
public:
	shared_lock(const manager_pointer &manager, uint32_t id) : manager(manager.get()), id(id) {}
	void lock()
	{
		succeeded(lock_manager_lock(manager, id));
	}
	void unlock()
	{
		succeeded(lock_manager_unlock(manager, id));
	}
	bool held() const
	{
		lock_manager_lock_info_t info = {};
		info.size = sizeof info;
		succeeded(lock_manager_lock_info(manager, id, &info));
		return info.held != 0;
	}

private:
	lock_manager_t *manager;
	uint32_t id;
};

manager_pointer create(const char *name)
{
	lock_manager_t *manager = nullptr;
	lock_manager_shm_options_t options = {};
	options.size = sizeof options;
	succeeded(lock_manager_new_shm(name, 32, &options, &manager));
	return manager_pointer(manager);
}

void a_guard_unlocks_when_it_goes_out_of_scope()
{
	manager_pointer manager = create(new_name());
	shared_lock lock(manager, 3);
	{
		std::lock_guard<shared_lock> guard(lock);
		CHECK(lock.held());
	}
	CHECK(!lock.held());
}

void a_guard_unlocks_when_an_exception_passes()
{
	manager_pointer manager = create(new_name());
	shared_lock lock(manager, 3);
	bool caught = false;
	try {
		std::lock_guard<shared_lock> guard(lock);
		throw 1;
	} catch (int) {
		caught = true;
	}
	CHECK(caught);
	CHECK(!lock.held());
}

void a_code_is_an_error_code_of_the_standard_library()
{
	std::error_code code;
	try {
		lock_manager_t *manager = nullptr;
		succeeded(lock_manager_open_shm(new_name(), 0, &manager));
	} catch (const std::system_error &error) {
		code = error.code();
	}
	CHECK(code == std::errc::no_such_file_or_directory);
}

} // namespace

int main()
{
	RUN_TEST(a_guard_unlocks_when_it_goes_out_of_scope);
	RUN_TEST(a_guard_unlocks_when_an_exception_passes);
	RUN_TEST(a_code_is_an_error_code_of_the_standard_library);
	return end_of_tests();
}
