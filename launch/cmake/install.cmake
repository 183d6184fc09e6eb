# find_package(strata) for C++ users: target strata::strata is everything.
add_library(strata_strata INTERFACE)
add_library(strata::strata ALIAS strata_strata)
target_link_libraries(strata_strata INTERFACE strata::launch)
set_target_properties(strata_strata PROPERTIES EXPORT_NAME strata)
install(TARGETS strata_strata EXPORT strata)

include(CMakePackageConfigHelpers)
set(strata_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/strata)
configure_package_config_file(launch/cmake/strata-config.cmake.in
  ${PROJECT_BINARY_DIR}/strata-config.cmake INSTALL_DESTINATION ${strata_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/strata-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(EXPORT strata NAMESPACE strata:: DESTINATION ${strata_package_dir} FILE strata-targets.cmake)
install(FILES ${PROJECT_BINARY_DIR}/strata-config.cmake
  ${PROJECT_BINARY_DIR}/strata-config-version.cmake DESTINATION ${strata_package_dir})
