# Headers, library, CMake package and pkg-config file, all of which may be moved together; the command line and its page.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(taskpool_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/taskpool)

install(TARGETS taskpool EXPORT taskpool-targets FILE_SET HEADERS)
install(FILES ${taskpool_component_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/taskpool)
install(FILES cmake/components.cmake DESTINATION ${taskpool_cmake_dir} RENAME taskpool-components.cmake)
install(EXPORT taskpool-targets NAMESPACE taskpool:: DESTINATION ${taskpool_cmake_dir})
configure_package_config_file(cmake/taskpool-config.cmake.in ${PROJECT_BINARY_DIR}/taskpool-config.cmake
                              INSTALL_DESTINATION ${taskpool_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/taskpool-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/taskpool-config.cmake ${PROJECT_BINARY_DIR}/taskpool-config-version.cmake
        DESTINATION ${taskpool_cmake_dir})

file(RELATIVE_PATH taskpool_pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" taskpool_pc_to_prefix "${taskpool_pc_to_prefix}")
if(BUILD_SHARED_LIBS)
  set(taskpool_pc_cflags "")
else()
  set(taskpool_pc_cflags " -DTASKPOOL_STATIC")
endif()
configure_file(cmake/taskpool.pc.in taskpool.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/taskpool.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET taskpool_exe)
  if(BUILD_SHARED_LIBS)
    file(RELATIVE_PATH taskpool_bin_to_lib /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
    set_target_properties(
      taskpool_exe PROPERTIES INSTALL_RPATH "$<IF:$<PLATFORM_ID:Darwin>,@loader_path,\$ORIGIN>/${taskpool_bin_to_lib}")
  endif()
  install(TARGETS taskpool_exe)
  if(EXISTS ${PROJECT_SOURCE_DIR}/docs/taskpool.1)
    install(FILES docs/taskpool.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  endif()
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
