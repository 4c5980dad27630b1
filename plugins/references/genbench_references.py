"""BibTeX of the works that the bundled plug-ins name in their references, and of the libraries that a run uses."""

from __future__ import annotations

from collections.abc import Mapping

from genbench.hookspecs import hookimpl

# ---------------------------------------------------------------- models, priors and networks

MODELS = {
    "arXiv:1312.6114": r"""@inproceedings{kingma2014vae,
  author    = {Kingma, Diederik P. and Welling, Max},
  title     = {Auto-Encoding Variational {B}ayes},
  booktitle = {International Conference on Learning Representations},
  year      = {2014},
  eprint    = {1312.6114},
  archivePrefix = {arXiv}
}""",
    "arXiv:1711.01558": r"""@inproceedings{tolstikhin2018wae,
  author    = {Tolstikhin, Ilya and Bousquet, Olivier and Gelly, Sylvain and Sch{\"o}lkopf, Bernhard},
  title     = {{W}asserstein Auto-Encoders},
  booktitle = {International Conference on Learning Representations},
  year      = {2018},
  eprint    = {1711.01558},
  archivePrefix = {arXiv}
}""",
    "arXiv:1705.07120": r"""@inproceedings{tomczak2018vampprior,
  author    = {Tomczak, Jakub M. and Welling, Max},
  title     = {{VAE} with a {VampPrior}},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year      = {2018},
  eprint    = {1705.07120},
  archivePrefix = {arXiv}
}""",
    "arXiv:1603.05027": r"""@inproceedings{he2016identity,
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  title     = {Identity Mappings in Deep Residual Networks},
  booktitle = {European Conference on Computer Vision},
  year      = {2016},
  eprint    = {1603.05027},
  archivePrefix = {arXiv}
}""",
    "arXiv:1803.08494": r"""@inproceedings{wu2018group,
  author    = {Wu, Yuxin and He, Kaiming},
  title     = {Group Normalization},
  booktitle = {European Conference on Computer Vision},
  year      = {2018},
  eprint    = {1803.08494},
  archivePrefix = {arXiv}
}""",
    "arXiv:1804.01947": r"""@inproceedings{kolouri2019swae,
  author    = {Kolouri, Soheil and Pope, Phillip E. and Martin, Charles E. and Rohde, Gustavo K.},
  title     = {Sliced {W}asserstein Auto-Encoders},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1804.01947},
  archivePrefix = {arXiv}
}""",
    "arXiv:1805.09235": r"""@article{knop2020cwae,
  author  = {Knop, Szymon and Spurek, Przemys{\l}aw and Tabor, Jacek and Podolak, Igor and Mazur, Marcin and
             Jastrz{\k{e}}bski, Stanis{\l}aw},
  title   = {{C}ramer-{W}old Auto-Encoder},
  journal = {Journal of Machine Learning Research},
  volume  = {21},
  number  = {164},
  pages   = {1--28},
  year    = {2020},
  eprint  = {1805.09235},
  archivePrefix = {arXiv}
}""",
    "arXiv:1903.05789": r"""@inproceedings{dai2019diagnosing,
  author    = {Dai, Bin and Wipf, David},
  title     = {Diagnosing and Enhancing {VAE} Models},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1903.05789},
  archivePrefix = {arXiv}
}""",
    "arXiv:1906.04032": r"""@inproceedings{durkan2019neural,
  author    = {Durkan, Conor and Bekasov, Artur and Murray, Iain and Papamakarios, George},
  title     = {Neural Spline Flows},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  eprint    = {1906.04032},
  archivePrefix = {arXiv}
}""",
    "arXiv:1903.12436": r"""@inproceedings{ghosh2020rae,
  author    = {Ghosh, Partha and Sajjadi, Mehdi S. M. and Vergari, Antonio and Black, Michael and
               Sch{\"o}lkopf, Bernhard},
  title     = {From Variational to Deterministic Autoencoders},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  eprint    = {1903.12436},
  archivePrefix = {arXiv}
}""",
    "arXiv:1606.04934": r"""@inproceedings{kingma2016iaf,
  author    = {Kingma, Diederik P. and Salimans, Tim and Jozefowicz, Rafal and Chen, Xi and Sutskever, Ilya and
               Welling, Max},
  title     = {Improved Variational Inference with Inverse Autoregressive Flow},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016},
  eprint    = {1606.04934},
  archivePrefix = {arXiv}
}""",
    "arXiv:1706.02262": r"""@inproceedings{zhao2019infovae,
  author    = {Zhao, Shengjia and Song, Jiaming and Ermon, Stefano},
  title     = {{InfoVAE}: Balancing Learning and Inference in Variational Autoencoders},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2019},
  eprint    = {1706.02262},
  archivePrefix = {arXiv}
}""",
    "arXiv:1509.00519": r"""@inproceedings{burda2016iwae,
  author    = {Burda, Yuri and Grosse, Roger and Salakhutdinov, Ruslan},
  title     = {Importance Weighted Autoencoders},
  booktitle = {International Conference on Learning Representations},
  year      = {2016},
  eprint    = {1509.00519},
  archivePrefix = {arXiv}
}""",
    "arXiv:1802.04942": r"""@inproceedings{chen2018tcvae,
  author    = {Chen, Ricky T. Q. and Li, Xuechen and Grosse, Roger and Duvenaud, David},
  title     = {Isolating Sources of Disentanglement in Variational Autoencoders},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {31},
  year      = {2018},
  eprint    = {1802.04942},
  archivePrefix = {arXiv}
}""",
    "arXiv:1802.05983": r"""@inproceedings{kim2018factorvae,
  author    = {Kim, Hyunjik and Mnih, Andriy},
  title     = {Disentangling by Factorising},
  booktitle = {International Conference on Machine Learning},
  year      = {2018},
  eprint    = {1802.05983},
  archivePrefix = {arXiv}
}""",
    "arXiv:1711.00848": r"""@inproceedings{kumar2018dipvae,
  author    = {Kumar, Abhishek and Sattigeri, Prasanna and Balakrishnan, Avinash},
  title     = {Variational Inference of Disentangled Latent Concepts from Unlabeled Observations},
  booktitle = {International Conference on Learning Representations},
  year      = {2018},
  eprint    = {1711.00848},
  archivePrefix = {arXiv}
}""",
    "arXiv:1804.00891": r"""@inproceedings{davidson2018svae,
  author    = {Davidson, Tim R. and Falorsi, Luca and De Cao, Nicola and Kipf, Thomas and Tomczak, Jakub M.},
  title     = {Hyperspherical Variational Auto-Encoders},
  booktitle = {Conference on Uncertainty in Artificial Intelligence},
  year      = {2018},
  eprint    = {1804.00891},
  archivePrefix = {arXiv}
}""",
    "arXiv:1805.08498": r"""@inproceedings{figurnov2018implicit,
  author    = {Figurnov, Michael and Mohamed, Shakir and Mnih, Andriy},
  title     = {Implicit Reparameterization Gradients},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {31},
  year      = {2018},
  eprint    = {1805.08498},
  archivePrefix = {arXiv}
}""",
    "arXiv:1711.00937": r"""@inproceedings{oord2017vqvae,
  author    = {van den Oord, Aaron and Vinyals, Oriol and Kavukcuoglu, Koray},
  title     = {Neural Discrete Representation Learning},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017},
  eprint    = {1711.00937},
  archivePrefix = {arXiv}
}""",
    "arXiv:1810.01118": r"""@inproceedings{patrini2019sinkhorn,
  author    = {Patrini, Giorgio and van den Berg, Rianne and Forr{\'e}, Patrick and Carioni, Marcello and
               Bhargav, Samarth and Welling, Max and Genewein, Tim and Nielsen, Frank},
  title     = {{S}inkhorn {A}uto{E}ncoders},
  booktitle = {Conference on Uncertainty in Artificial Intelligence},
  year      = {2019},
  eprint    = {1810.01118},
  archivePrefix = {arXiv}
}""",
    "arXiv:1902.00434": r"""@inproceedings{kolouri2019generalized,
  author    = {Kolouri, Soheil and Nadjahi, Kimia and {\c{S}}im{\c{s}}ekli, Umut and Badeau, Roland and
               Rohde, Gustavo K.},
  title     = {Generalized Sliced {W}asserstein Distances},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  eprint    = {1902.00434},
  archivePrefix = {arXiv}
}""",
    "arXiv:1904.05877": r"""@inproceedings{deshpande2019max,
  author    = {Deshpande, Ishan and Hu, Yuan-Ting and Sun, Ruoyu and Pyrros, Ayis and Siddiqui, Nasir and
               Koyejo, Sanmi and Zhao, Zhizhen and Forsyth, David and Schwing, Alexander},
  title     = {Max-Sliced {W}asserstein Distance and its Use for {GAN}s},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2019},
  eprint    = {1904.05877},
  archivePrefix = {arXiv}
}""",
    "arXiv:2002.02913": r"""@inproceedings{xu2020relational,
  author    = {Xu, Hongteng and Luo, Dixin and Henao, Ricardo and Shah, Svati and Carin, Lawrence},
  title     = {Learning Autoencoders with Relational Regularization},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {2002.02913},
  archivePrefix = {arXiv}
}""",
    "arXiv:2002.07367": r"""@inproceedings{nguyen2021distributional,
  author    = {Nguyen, Khai and Ho, Nhat and Pham, Tung and Bui, Hung},
  title     = {Distributional Sliced-{W}asserstein and Applications to Generative Modeling},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2002.07367},
  archivePrefix = {arXiv}
}""",
    "arXiv:2010.01787": r"""@inproceedings{nguyen2021relational,
  author    = {Nguyen, Khai and Nguyen, Son and Ho, Nhat and Pham, Tung and Bui, Hung},
  title     = {Improving Relational Regularized Autoencoders with Spherical Sliced Fused {G}romov {W}asserstein},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2010.01787},
  archivePrefix = {arXiv}
}""",
    "arXiv:2304.13586": r"""@inproceedings{nguyen2023energy,
  author    = {Nguyen, Khai and Ho, Nhat},
  title     = {Energy-Based Sliced {W}asserstein Distance},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  eprint    = {2304.13586},
  archivePrefix = {arXiv}
}""",
    "doi:10.1126/science.1127647": r"""@article{hinton2006reducing,
  author  = {Hinton, Geoffrey E. and Salakhutdinov, Ruslan R.},
  title   = {Reducing the Dimensionality of Data with Neural Networks},
  journal = {Science},
  volume  = {313},
  number  = {5786},
  pages   = {504--507},
  year    = {2006},
  doi     = {10.1126/science.1127647}
}""",
}

# ---------------------------------------------------------------- datasets

DATASETS = {
    "arXiv:1411.7766": r"""@inproceedings{liu2015celeba,
  author    = {Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  title     = {Deep Learning Face Attributes in the Wild},
  booktitle = {IEEE International Conference on Computer Vision},
  year      = {2015},
  eprint    = {1411.7766},
  archivePrefix = {arXiv}
}""",
    "arXiv:1708.07747": r"""@misc{xiao2017fashion,
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  title  = {{Fashion-MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  year   = {2017},
  eprint = {1708.07747},
  archivePrefix = {arXiv},
  note   = {arXiv:1708.07747}
}""",
    "LeCun et al. 1998": r"""@article{lecun1998gradient,
  author  = {LeCun, Yann and Bottou, L{\'e}on and Bengio, Yoshua and Haffner, Patrick},
  title   = {Gradient-Based Learning Applied to Document Recognition},
  journal = {Proceedings of the IEEE},
  volume  = {86},
  number  = {11},
  pages   = {2278--2324},
  year    = {1998}
}""",
    "Krizhevsky 2009": r"""@techreport{krizhevsky2009learning,
  author      = {Krizhevsky, Alex},
  title       = {Learning Multiple Layers of Features from Tiny Images},
  institution = {University of Toronto},
  year        = {2009}
}""",
    "Netzer et al. 2011": r"""@inproceedings{netzer2011reading,
  author    = {Netzer, Yuval and Wang, Tao and Coates, Adam and Bissacco, Alessandro and Wu, Bo and Ng, Andrew Y.},
  title     = {Reading Digits in Natural Images with Unsupervised Feature Learning},
  booktitle = {NIPS Workshop on Deep Learning and Unsupervised Feature Learning},
  year      = {2011}
}""",
}

# ---------------------------------------------------------------- metrics

METRICS = {
    "arXiv:1711.00464": r"""@inproceedings{alemi2018fixing,
  author    = {Alemi, Alexander A. and Poole, Ben and Fischer, Ian and Dillon, Joshua V. and Saurous, Rif A. and
               Murphy, Kevin},
  title     = {Fixing a Broken {ELBO}},
  booktitle = {International Conference on Machine Learning},
  year      = {2018},
  eprint    = {1711.00464},
  archivePrefix = {arXiv}
}""",
    "Eastwood and Williams, ICLR 2018": r"""@inproceedings{eastwood2018framework,
  author    = {Eastwood, Cian and Williams, Christopher K. I.},
  title     = {A Framework for the Quantitative Evaluation of Disentangled Representations},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "arXiv:1606.03498": r"""@inproceedings{salimans2016improved,
  author    = {Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and
               Chen, Xi},
  title     = {Improved Techniques for Training {GANs}},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016},
  eprint    = {1606.03498},
  archivePrefix = {arXiv}
}""",
    "arXiv:1706.08500": r"""@inproceedings{heusel2017gans,
  author    = {Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and
               Hochreiter, Sepp},
  title     = {{GANs} Trained by a Two Time-Scale Update Rule Converge to a Local {N}ash Equilibrium},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {30},
  year      = {2017},
  eprint    = {1706.08500},
  archivePrefix = {arXiv}
}""",
    "arXiv:1801.01401": r"""@inproceedings{binkowski2018demystifying,
  author    = {Bi{\'n}kowski, Miko{\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},
  title     = {Demystifying {MMD} {GANs}},
  booktitle = {International Conference on Learning Representations},
  year      = {2018},
  eprint    = {1801.01401},
  archivePrefix = {arXiv}
}""",
    "arXiv:1904.06991": r"""@inproceedings{kynkaanniemi2019improved,
  author    = {Kynk{\"a}{\"a}nniemi, Tuomas and Karras, Tero and Laine, Samuli and Lehtinen, Jaakko and Aila, Timo},
  title     = {Improved Precision and Recall Metric for Assessing Generative Models},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019},
  eprint    = {1904.06991},
  archivePrefix = {arXiv}
}""",
    "arXiv:1911.07023": r"""@inproceedings{chong2020effectively,
  author    = {Chong, Min Jin and Forsyth, David},
  title     = {Effectively Unbiased {FID} and {I}nception Score and Where to Find Them},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2020},
  eprint    = {1911.07023},
  archivePrefix = {arXiv}
}""",
    "arXiv:2002.09797": r"""@inproceedings{naeem2020reliable,
  author    = {Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and Yoo, Jaejun},
  title     = {Reliable Fidelity and Diversity Metrics for Generative Models},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {2002.09797},
  archivePrefix = {arXiv}
}""",
    "arXiv:2004.05675": r"""@inproceedings{meehan2020copying,
  author    = {Meehan, Casey and Chaudhuri, Kamalika and Dasgupta, Sanjoy},
  title     = {A Non-Parametric Test to Detect Data-Copying in Generative Models},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year      = {2020},
  eprint    = {2004.05675},
  archivePrefix = {arXiv}
}""",
    "arXiv:2102.08921": r"""@inproceedings{alaa2022faithful,
  author    = {Alaa, Ahmed M. and van Breugel, Boris and Saveliev, Evgeny and van der Schaar, Mihaela},
  title     = {How Faithful is your Synthetic Data? {S}ample-level Metrics for Evaluating and Auditing Generative
               Models},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
  eprint    = {2102.08921},
  archivePrefix = {arXiv}
}""",
    "arXiv:2302.04440": r"""@inproceedings{jiralerspong2023fld,
  author    = {Jiralerspong, Marco and Bose, Avishek Joey and Gemp, Ian and Qin, Chongli and Bachrach, Yoram and
               Gidel, Gauthier},
  title     = {Feature Likelihood Divergence: Evaluating the Generalization of Generative Models Using Samples},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {36},
  year      = {2023},
  eprint    = {2302.04440},
  archivePrefix = {arXiv}
}""",
    "arXiv:2605.06797": r"""@misc{berthet2026mind,
  author = {Berthet, Quentin and Wu, Yu-Han and Cr{\'e}py, Cl{\'e}ment and Elie, Romuald and Greff, Klaus and
            Sander, Micha{\"e}l E.},
  title  = {{MIND}: {M}onge Inception Distance for Generative Models Evaluation},
  year   = {2026},
  eprint = {2605.06797},
  archivePrefix = {arXiv}
}""",
    "doi:10.1109/ICPR.2010.579": r"""@inproceedings{hore2010psnr,
  author    = {Hor{\'e}, Alain and Ziou, Djemel},
  title     = {Image Quality Metrics: {PSNR} vs. {SSIM}},
  booktitle = {International Conference on Pattern Recognition},
  year      = {2010},
  doi       = {10.1109/ICPR.2010.579}
}""",
    "doi:10.1109/TIP.2003.819861": r"""@article{wang2004ssim,
  author  = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  title   = {Image Quality Assessment: From Error Visibility to Structural Similarity},
  journal = {IEEE Transactions on Image Processing},
  volume  = {13},
  number  = {4},
  pages   = {600--612},
  year    = {2004},
  doi     = {10.1109/TIP.2003.819861}
}""",
    "doi:10.1109/ACSSC.2003.1292216": r"""@inproceedings{wang2003msssim,
  author    = {Wang, Zhou and Simoncelli, Eero P. and Bovik, Alan C.},
  title     = {Multiscale Structural Similarity for Image Quality Assessment},
  booktitle = {Asilomar Conference on Signals, Systems and Computers},
  volume    = {2},
  pages     = {1398--1402},
  year      = {2003},
  doi       = {10.1109/ACSSC.2003.1292216}
}""",
    "arXiv:1801.03924": r"""@inproceedings{zhang2018lpips,
  author    = {Zhang, Richard and Isola, Phillip and Efros, Alexei A. and Shechtman, Eli and Wang, Oliver},
  title     = {The Unreasonable Effectiveness of Deep Features as a Perceptual Metric},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2018},
  eprint    = {1801.03924},
  archivePrefix = {arXiv}
}""",
    "arXiv:2004.07728": r"""@article{ding2022dists,
  author  = {Ding, Keyan and Ma, Kede and Wang, Shiqi and Simoncelli, Eero P.},
  title   = {Image Quality Assessment: Unifying Structure and Texture Similarity},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year    = {2022},
  eprint  = {2004.07728},
  archivePrefix = {arXiv}
}""",
    "arXiv:2304.07193": r"""@article{oquab2024dinov2,
  author  = {Oquab, Maxime and Darcet, Timoth{\'e}e and Moutakanni, Th{\'e}o and others},
  title   = {{DINOv2}: Learning Robust Visual Features without Supervision},
  journal = {Transactions on Machine Learning Research},
  year    = {2024},
  eprint  = {2304.07193},
  archivePrefix = {arXiv}
}""",
    "arXiv:2306.04675": r"""@inproceedings{stein2023exposing,
  author    = {Stein, George and Cresswell, Jesse C. and Hosseinzadeh, Rasa and Sui, Yi and Ross, Brendan Leigh and
               Villecroze, Valentin and Liu, Zhaoyan and Caterini, Anthony L. and Taylor, J. Eric T. and
               Loaiza-Ganem, Gabriel},
  title     = {Exposing Flaws of Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion Models},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  eprint    = {2306.04675},
  archivePrefix = {arXiv}
}""",
    "arXiv:2103.00020": r"""@inproceedings{radford2021clip,
  author    = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and
               Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and
               Krueger, Gretchen and Sutskever, Ilya},
  title     = {Learning Transferable Visual Models From Natural Language Supervision},
  booktitle = {International Conference on Machine Learning},
  year      = {2021},
  eprint    = {2103.00020},
  archivePrefix = {arXiv}
}""",
    "arXiv:1409.1556": r"""@inproceedings{simonyan2015vgg,
  author    = {Simonyan, Karen and Zisserman, Andrew},
  title     = {Very Deep Convolutional Networks for Large-Scale Image Recognition},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
  eprint    = {1409.1556},
  archivePrefix = {arXiv}
}""",
    "arXiv:1905.11946": r"""@inproceedings{tan2019efficientnet,
  author    = {Tan, Mingxing and Le, Quoc V.},
  title     = {{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks},
  booktitle = {International Conference on Machine Learning},
  year      = {2019},
  eprint    = {1905.11946},
  archivePrefix = {arXiv}
}""",
}

# ---------------------------------------------------------------- trackers

TRACKERS = {
    "arXiv:1603.04467": r"""@misc{abadi2016tensorflow,
  author = {Abadi, Mart{\'i}n and Agarwal, Ashish and Barham, Paul and others},
  title  = {{TensorFlow}: Large-Scale Machine Learning on Heterogeneous Distributed Systems},
  year   = {2016},
  eprint = {1603.04467},
  archivePrefix = {arXiv}
}""",
}

# ---------------------------------------------------------------- code that defaults come from

CODE = {
    "gmum/cwae-pytorch": r"""@misc{code-cwae-pytorch,
  author = {{gmum}},
  title  = {{cwae-pytorch}, source code},
  url    = {https://github.com/gmum/cwae-pytorch}
}""",
    "skolouri/swae": r"""@misc{code-swae,
  author = {{skolouri}},
  title  = {{swae}, source code and notebooks},
  url    = {https://github.com/skolouri/swae}
}""",
    "tolstikhin/wae": r"""@misc{code-wae,
  author = {{tolstikhin}},
  title  = {{wae}, source code},
  url    = {https://github.com/tolstikhin/wae}
}""",
}

# ---------------------------------------------------------------- libraries, by the name of their distribution

LIBRARIES = {
    "torch": r"""@inproceedings{paszke2019pytorch,
  author    = {Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James and
               Chanan, Gregory and Killeen, Trevor and Lin, Zeming and Gimelshein, Natalia and Antiga, Luca and
               Desmaison, Alban and K{\"o}pf, Andreas and Yang, Edward and DeVito, Zachary and Raison, Martin and
               Tejani, Alykhan and Chilamkurthy, Sasank and Steiner, Benoit and Fang, Lu and Bai, Junjie and
               Chintala, Soumith},
  title     = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019},
  eprint    = {1912.01703},
  archivePrefix = {arXiv}
}""",
    "torchvision": r"""@misc{torchvision2016,
  author = {{TorchVision maintainers and contributors}},
  title  = {{TorchVision}: {PyTorch}'s Computer Vision library},
  year   = {2016},
  url    = {https://github.com/pytorch/vision}
}""",
    "POT": r"""@article{flamary2021pot,
  author  = {Flamary, R{\'e}mi and Courty, Nicolas and Gramfort, Alexandre and Alaya, Mokhtar Z. and
             Boisbunon, Aur{\'e}lie and Chambon, Stanislas and Chapel, Laetitia and Corenflos, Adrien and
             Fatras, Kilian and Fournier, Nemo and Gautheron, L{\'e}o and Gayraud, Nathalie T. H. and
             Janati, Hicham and Rakotomamonjy, Alain and Redko, Ievgen and Rolet, Antoine and Schutz, Antony and
             Seguy, Vivien and Sutherland, Danica J. and Tavenard, Romain and Tong, Alexander and Vayer, Titouan},
  title   = {{POT}: {P}ython Optimal Transport},
  journal = {Journal of Machine Learning Research},
  volume  = {22},
  number  = {78},
  pages   = {1--8},
  year    = {2021}
}""",
    "scikit-learn": r"""@article{pedregosa2011scikit,
  author  = {Pedregosa, Fabian and Varoquaux, Ga{\"e}l and Gramfort, Alexandre and Michel, Vincent and
             Thirion, Bertrand and Grisel, Olivier and Blondel, Mathieu and Prettenhofer, Peter and Weiss, Ron and
             Dubourg, Vincent and Vanderplas, Jake and Passos, Alexandre and Cournapeau, David and
             Brucher, Matthieu and Perrot, Matthieu and Duchesnay, {\'E}douard},
  title   = {Scikit-learn: Machine Learning in {P}ython},
  journal = {Journal of Machine Learning Research},
  volume  = {12},
  pages   = {2825--2830},
  year    = {2011}
}""",
    "torch-fidelity": r"""@misc{obukhov2020torchfidelity,
  author = {Obukhov, Anton and Seitzer, Maximilian and Wu, Po-Wei and Zhydenko, Semen and Kyl, Jonathan and
            Lin, Elvis Yu-Jing},
  title  = {High-fidelity performance metrics for generative models in {PyTorch}},
  year   = {2020},
  doi    = {10.5281/zenodo.4957738},
  url    = {https://github.com/toshas/torch-fidelity}
}""",
    "numpy": r"""@article{harris2020numpy,
  author  = {Harris, Charles R. and Millman, K. Jarrod and van der Walt, St{\'e}fan J. and others},
  title   = {Array programming with {NumPy}},
  journal = {Nature},
  volume  = {585},
  pages   = {357--362},
  year    = {2020},
  doi     = {10.1038/s41586-020-2649-2}
}""",
    "scipy": r"""@article{virtanen2020scipy,
  author  = {Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others},
  title   = {{SciPy} 1.0: fundamental algorithms for scientific computing in {P}ython},
  journal = {Nature Methods},
  volume  = {17},
  pages   = {261--272},
  year    = {2020},
  doi     = {10.1038/s41592-019-0686-2}
}""",
}


@hookimpl
def genbench_bibtex() -> Mapping[str, str]:
    """The entries, by the text that stands in a reference, or by the name of a library."""
    return {**MODELS, **DATASETS, **METRICS, **TRACKERS, **CODE, **LIBRARIES}
