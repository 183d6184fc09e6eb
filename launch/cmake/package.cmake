# cmake --build BUILD --target package: one Debian package with the program, the headers and static
# libraries, and the CMake files. What the program links is found by dpkg-shlibdeps (dpkg-dev).
install(PROGRAMS launch/convert-bin.py launch/fetch-model.sh
  DESTINATION ${CMAKE_INSTALL_DATADIR}/strata/launch)
install(FILES docs/user-guide.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

set(CPACK_GENERATOR DEB)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "The Strata maintainers <strata@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_DESCRIPTION
  "Parameters, gradients and optimizer state stream between drives and memory while the processor
computes. The package holds the strata command and the C++ library that it is made of.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# A single rank starts without MPI's launcher; the rest is what find_package(strata) looks for.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openmpi-bin, pkg-config, libopenmpi-dev, libdnnl-dev, \
liburing-dev, libpcre2-dev, libutf8proc-dev, nlohmann-json3-dev, libcli11-dev, libfmt-dev")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "g++, cmake, fio, python3, curl")
include(CPack)
