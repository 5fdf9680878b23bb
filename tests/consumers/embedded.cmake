# What must hold in a project that builds taskpool inside itself: only the library is added, and nothing leaks.
add_executable(consumer ../main.cpp)
target_link_libraries(consumer PRIVATE taskpool::taskpool)

get_target_property(options taskpool INTERFACE_COMPILE_OPTIONS)
if(options)
  message(FATAL_ERROR "taskpool hands its users compile options: ${options}")
endif()
foreach(target IN ITEMS taskpool_exe core_tests cli_tests)
  if(TARGET ${target})
    message(FATAL_ERROR "an embedded taskpool builds ${target}")
  endif()
endforeach()
